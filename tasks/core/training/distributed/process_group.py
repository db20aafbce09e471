"""The processes that train one network together, each on a part of every batch."""

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
    """This process's rank among `count` processes; with one process, every method is trivial."""

    rank: int = 0
    count: int = 1

    @property
    def is_rank_0(self) -> bool:
        return self.rank == 0

    def shard(self, batch: Tensor) -> Tensor:
        """This rank's part of a batch; the parts of a smaller last batch differ by at most one image.

        With fewer images than processes, a rank without any gets the first one, with a weight of 0 in the loss.
        """
        return batch.tensor_split(self.count)[self.rank] if self.has_images(len(batch)) else batch[:1]

    def has_images(self, batch_size: int) -> bool:
        """Whether this rank has a part of a batch of this size."""
        return self.rank < batch_size

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes in rank order: the order in an all-reduce depends on a value's position."""
        if self.count == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(parts, values)
        return reduce(torch.add, parts)

    def longest(self, seconds: float) -> float:
        """The longest time that any process has taken; it goes through the CPU, so a GPU does not wait."""
        if self.count == 1:
            return seconds
        longest = torch.tensor(seconds, dtype=torch.float64)
        dist.all_reduce(longest, dist.ReduceOp.MAX)
        return longest.item()

    def seed_rank(self, seed: int, step: int) -> None:
        """Seed the random numbers of a step, as for dropout, differently on each rank.

        They follow from seed, step and rank, so the checkpoint of rank 0 need not hold them.
        """
        if self.count > 1:
            seed_all(Random(f"{seed} {step} {self.rank}").getrandbits(63))

    def wrap_distributed(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over all processes, and on GPUs with synchronized batch norm.

        `find_unused_parameters` is always on: without it PyTorch adds gradients in another order from the second
        step on, and three or more processes would not resume bit for bit.
        """
        if self.count == 1:
            return network
        device = next(network.parameters()).device
        if device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        device_ids = [device] if device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids, find_unused_parameters=True)


SINGLE_PROCESS = ProcessGroup()
