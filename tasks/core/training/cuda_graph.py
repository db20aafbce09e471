"""A training step recorded once, as a CUDA graph: launching its small kernels one by one takes longer than they do."""

from collections.abc import Callable

import torch
from torch import Tensor

from tasks.core.recipes import OUR_MODELS, Recipe

Step = Callable[[Tensor, Tensor, int], Tensor]
WARM_UP_STEPS = 2  # in which all is made that is made once; they are training steps like any other


def supports_cuda_graph(recipe: Recipe, device: torch.device) -> bool:
    """Whether a recipe's steps can be recorded: on a GPU, and of our own networks; others may do what cannot."""
    return device.type == "cuda" and recipe.model in OUR_MODELS


class CudaGraphStep:
    """Takes the first steps as they are, then replays one: on batches of one size, with the same tensors updated.

    What it computes in stays its own, beside what steps on smaller batches take.
    """

    def __init__(self, step: Step, device: torch.device) -> None:
        self._step, self._taken = step, 0
        self._stream, self._graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()

    def __call__(self, batch: Tensor, labels: Tensor, images: int) -> Tensor:
        self._taken += 1
        if self._taken <= WARM_UP_STEPS:
            return self._unrecorded(batch, labels, images)
        if self._taken == WARM_UP_STEPS + 1:
            self._record(batch, labels, images)
        self._batch.copy_(batch)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._result.clone()

    def _unrecorded(self, batch: Tensor, labels: Tensor, images: int) -> Tensor:
        """A step on the stream that is recorded on later, which PyTorch asks for."""
        usual = torch.cuda.current_stream(batch.device)
        self._stream.wait_stream(usual)
        with torch.cuda.stream(self._stream):
            result = self._step(batch, labels, images)
        usual.wait_stream(self._stream)
        return result

    def _record(self, batch: Tensor, labels: Tensor, images: int) -> None:
        self._batch, self._labels = torch.empty_like(batch), torch.empty_like(labels)
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._result = self._step(self._batch, self._labels, images)
