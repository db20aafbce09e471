"""Training steps as a CUDA graph: launching small kernels one by one takes longer than running them."""

from collections.abc import Callable

import torch
from torch import Tensor

from tasks.core.recipes import BUILT_IN_MODELS, Recipe

Step = Callable[[Tensor, Tensor, int], Tensor]
WARM_UP_STEPS = 2  # before recording, for one-time initialization; they are ordinary training steps


def supports_cuda_graph(recipe: Recipe, device: torch.device) -> bool:
    """Whether a recipe's steps can be recorded: built-in networks on a GPU; a custom one may do what graphs cannot."""
    return device.type == "cuda" and recipe.model in BUILT_IN_MODELS


class CudaGraphStep:
    """Runs the first steps eagerly, then replays a recorded one; all batches have the same size."""

    def __init__(self, step: Step, device: torch.device) -> None:
        self._step, self._count = step, 0
        self._stream, self._graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()

    def __call__(self, batch: Tensor, labels: Tensor, images: int) -> Tensor:
        self._count += 1
        if self._count <= WARM_UP_STEPS:
            current = torch.cuda.current_stream(batch.device)
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):  # of the later recording, as PyTorch requires
                result = self._step(batch, labels, images)
            current.wait_stream(self._stream)
            return result
        if self._count == WARM_UP_STEPS + 1:
            self._batch, self._labels = torch.empty_like(batch), torch.empty_like(labels)
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._result = self._step(self._batch, self._labels, images)
        self._batch.copy_(batch)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._result.clone()
