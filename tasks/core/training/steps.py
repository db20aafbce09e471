"""How training steps are taken: by autograd for any network, written out for the tutorial's."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tasks.core.errors import InputError
from tasks.core.models.factory import eval_mode
from tasks.core.models.tutorial_net import Net
from tasks.core.recipes import RECIPES, Recipe
from tasks.core.runtime.device import TINY_BATCH, Hardware, is_compiled, layout_for, precision_for
from tasks.core.runtime.seeding import fixed_seed
from tasks.core.training.cuda_graph import CudaGraphStep, Step, supports_cuda_graph
from tasks.core.training.distributed.process_group import ProcessGroup
from tasks.core.training.manual_step import ManualTrainer

BeforeStep = Callable[[int], None]  # is told each step, counted from 0


class Steps(Protocol):
    """Takes one step for each batch of a stretch of images."""

    def take(self, inputs_nchw: Tensor, targets: Tensor, first_step: int) -> Tensor:
        """The loss of each step and how many of its images were right, float32 [steps, 2] on the device."""


@dataclass(frozen=True)
class AutogradStep:
    """Forward, backward and the optimizer, on this process's share of a batch."""

    network: nn.Module
    model: str
    optimizer: torch.optim.Optimizer
    dtype: torch.dtype
    layout: torch.memory_format
    label_smoothing: float
    workers: ProcessGroup

    def __call__(self, batch: Tensor, labels: Tensor, images: int) -> Tensor:
        """The share's part of the mean loss over all `images` of the batch, and of its hits."""
        self.optimizer.zero_grad()
        with torch.autocast(batch.device.type, self.dtype, enabled=self.dtype != torch.float32):
            answer = self.network(batch.contiguous(memory_format=self.layout))
        logits = self._logits(answer, len(batch)).float()
        weight = float(self.workers.counts(images))
        part = weight * cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="sum") / images
        (part * self.workers.count).backward()  # gradients are averaged over the processes
        self.optimizer.step()
        with torch.no_grad():
            hits = weight * (logits.argmax(dim=1) == labels).sum()
            return torch.stack([part.detach(), hits])

    def _logits(self, answer: object, images: int) -> Tensor:
        """What a network gives in training, which was seen to be logits in evaluation alone."""
        if isinstance(answer, Tensor) and answer.dim() == 2 and len(answer) == images:
            return answer
        found = list(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise InputError(
            f"model {self.model}: expected logits [{images}, classes] in training, too, got {found}; "
            "have it give these alone, whatever its mode"
        )


class AutogradSteps:
    """Steps for any network, batch by batch.

    Those on whole batches are compiled if that is asked for, and recorded on one GPU if the network is ours.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        before_step: BeforeStep,
        workers: ProcessGroup,
    ) -> None:
        self._batch_size, self._before_step, self._workers = recipe.batch_size, before_step, workers
        device = next(network.parameters()).device
        dtype, layout = precision_for(device, recipe.precision), layout_for(device, recipe.precision)
        network.to(memory_format=layout)
        if layout == torch.channels_last:
            _refuse_views(network, recipe.model)
        joined = workers.wrap_distributed(network)
        step = AutogradStep(joined, recipe.model, optimizer, dtype, layout, recipe.label_smoothing, workers)
        self._step: Step = step
        self._whole_step: Step = step
        if is_compiled(Hardware(device, workers.count), recipe.compile):
            compiled: Any = torch.compile(joined, dynamic=False)
            self._whole_step = replace(step, network=compiled)
        if supports_cuda_graph(recipe, device) and workers.count == 1:
            self._whole_step = CudaGraphStep(self._whole_step, device)

    def take(self, inputs_nchw: Tensor, targets: Tensor, first_step: int) -> Tensor:
        size = self._batch_size
        results = []
        for step, (batch, labels) in enumerate(
            zip(inputs_nchw.split(size), targets.split(size), strict=True), start=first_step
        ):
            self._before_step(step)
            take = self._whole_step if len(batch) == size else self._step
            results.append(take(self._workers.share(batch), self._workers.share(labels), len(batch)))
        return self._workers.total(torch.stack(results))


def _refuse_views(network: nn.Module, model: str) -> None:
    """InputError if the network's code takes images in their usual order in memory alone, as a `view` may."""
    device = next(network.parameters()).device
    images = torch.zeros(2, 3, 32, 32, device=device)
    try:
        with fixed_seed(0, device), eval_mode(network):
            network(images.contiguous(memory_format=torch.channels_last))
    except RuntimeError as error:
        words = " ".join(str(error).split())
        if not words.startswith("view size is not compatible"):
            raise
        raise InputError(
            f"model {model}: expected it to take images in {torch.channels_last}, got: {words}; "
            "put flatten or reshape in the place of view, or give --precision float32"
        ) from None


class ManualSteps:
    """The tutorial's steps without autograd, some two times as fast; its learning rate is the same in each."""

    def __init__(self, written_out: ManualTrainer, before_step: BeforeStep) -> None:
        self._written_out, self._before_step = written_out, before_step

    def take(self, inputs_nchw: Tensor, targets: Tensor, first_step: int) -> Tensor:
        self._before_step(first_step)
        return self._written_out.train_stretch(inputs_nchw, targets)


def select_steps(
    network: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, before_step: BeforeStep, workers: ProcessGroup
) -> Steps:
    """The quickest way to take a recipe's steps with a network where it is."""
    if (
        recipe.model == RECIPES["tutorial"].model  # what is derived from it computes as it likes
        and isinstance(network, Net)
        and isinstance(optimizer, torch.optim.SGD)
        and recipe.batch_size <= TINY_BATCH
        and workers.count == 1
        and _is_plain(recipe, next(network.parameters()).device)
    ):
        return ManualSteps(ManualTrainer(network, optimizer, recipe.batch_size), before_step)
    return AutogradSteps(network, optimizer, recipe, before_step, workers)


def _is_plain(recipe: Recipe, device: torch.device) -> bool:
    """Whether a step is all that is written out: float32 on a CPU, cross-entropy, SGD with momentum."""
    extras = recipe.nesterov or recipe.weight_decay or recipe.label_smoothing or recipe.schedule != "constant"
    return device.type == "cpu" and precision_for(device, recipe.precision) == torch.float32 and not extras
