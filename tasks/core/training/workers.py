"""The processes that train one network together, each on its share of every batch."""

from dataclasses import dataclass
from random import Random

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Workers:
    """This process's place among `count`; alone, it does all by itself."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch; the parts of a last batch that does not divide differ by one image."""
        return batch if self.count == 1 else batch.tensor_split(self.count)[self.rank]

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def agree(self, stop: bool, seconds: float) -> tuple[bool, float]:
        """Whether any process is to stop, and the most seconds that any has taken: all go on alike by these.

        It is asked by way of the CPU, so that a GPU goes on meanwhile.
        """
        if self.count == 1:
            return stop, seconds
        most = torch.tensor([float(stop), seconds], dtype=torch.float64)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return bool(most[0]), most[1].item()

    def draw_apart(self, seed: int, step: int) -> None:
        """In a step, have each process draw numbers of its own, as for dropout, that follow from all three alone.

        So they need not be in the checkpoint, which is of one process.
        """
        if self.count > 1:
            torch.manual_seed(Random(f"{seed} {step} {self.rank}").getrandbits(63))

    def joined(self, network: nn.Module, *, some_unused: bool) -> nn.Module:
        """The network with its gradients averaged over all processes, and batch statistics too on GPUs.

        Weights that a step does not use are looked for if there may be `some_unused`.
        """
        if self.count == 1:
            return network
        device = next(network.parameters()).device
        if device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        device_ids = [device] if device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids, find_unused_parameters=some_unused)


ALONE = Workers()
