"""The processes that train one network together, each on its share of every batch."""

from dataclasses import dataclass
from functools import reduce
from random import Random

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tasks.core.runtime.seeding import seed_all


@dataclass(frozen=True)
class ProcessGroup:
    """This process's place among `count`; alone, it does all by itself."""

    rank: int = 0
    count: int = 1

    @property
    def is_rank_0(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch; the parts of a last batch that does not divide differ by one image.

        Where there are fewer images than processes, one without any takes the first, which `counts` for nothing there.
        """
        return batch.tensor_split(self.count)[self.rank] if self.counts(len(batch)) else batch[:1]

    def counts(self, images: int) -> bool:
        """Whether a batch of so many images has some for this process."""
        return self.rank < images

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, added up in their order: that of a ring follows from where a value stands."""
        if self.count == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(parts, values)
        return reduce(torch.add, parts)

    def agree(self, stop: bool, seconds: float) -> tuple[bool, float]:
        """Whether any process is to stop, and the most seconds that any has taken: all go on alike by these.

        It is asked by way of the CPU, so that a GPU goes on meanwhile.
        """
        if self.count == 1:
            return stop, seconds
        most = torch.tensor([float(stop), seconds], dtype=torch.float64)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return bool(most[0]), most[1].item()

    def seed_rank(self, seed: int, step: int) -> None:
        """In a step, have each process draw numbers of its own, as for dropout, that follow from all three alone.

        So they need not be in the checkpoint, which is of one process.
        """
        if self.count > 1:
            seed_all(Random(f"{seed} {step} {self.rank}").getrandbits(63))

    def wrap_distributed(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over all processes, and batch statistics too on GPUs.

        Weights that a step does not use are looked for, in every network: else PyTorch adds gradients up in another
        order from the second step on, and three processes or more would not go on from a checkpoint to the bit.
        """
        if self.count == 1:
            return network
        device = next(network.parameters()).device
        if device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        device_ids = [device] if device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids, find_unused_parameters=True)


SINGLE_PROCESS = ProcessGroup()
