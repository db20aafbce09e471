"""Training steps: by autograd for any network, by hand-written gradients for the tutorial's."""

from collections.abc import Callable
from functools import partial
from typing import Any

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

BeforeStep = Callable[[int], None]  # takes the number of the step, from 0
# Takes one step a batch on images [N, 3, 32, 32] with targets [N] and the number of the first step; returns the loss
# and the number of correct predictions of each step, float32 [steps, 2] on the device.
Steps = Callable[[Tensor, Tensor, int], Tensor]


class AutogradSteps:
    """Steps for any network; those on whole batches are compiled, or replayed as a CUDA graph, where possible."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        before_step: BeforeStep,
        processes: ProcessGroup,
    ) -> None:
        self._optimizer, self._recipe, self._before_step, self._processes = optimizer, recipe, before_step, processes
        device = next(network.parameters()).device
        self._dtype, self._layout = precision_for(device, recipe.precision), layout_for(device, recipe.precision)
        network.to(memory_format=self._layout)
        if self._layout == torch.channels_last:
            _check_channels_last(network, recipe.model)
        wrapped = processes.wrap_distributed(network)
        self._step: Step = partial(self._train, wrapped)
        self._whole_step: Step = self._step
        if is_compiled(Hardware(device, processes.count), recipe.compile):
            compiled: Any = torch.compile(wrapped, dynamic=False)
            self._whole_step = partial(self._train, compiled)
        if supports_cuda_graph(recipe, device) and processes.count == 1:
            self._whole_step = CudaGraphStep(self._whole_step, device)

    def __call__(self, inputs_nchw: Tensor, targets: Tensor, first_step: int) -> Tensor:
        size = self._recipe.batch_size
        results = []
        batches = zip(inputs_nchw.split(size), targets.split(size), strict=True)
        for step, (batch, labels) in enumerate(batches, start=first_step):
            self._before_step(step)
            train = self._whole_step if len(batch) == size else self._step
            results.append(train(self._processes.shard(batch), self._processes.shard(labels), len(batch)))
        return self._processes.sum(torch.stack(results))

    def _train(self, network: nn.Module, batch: Tensor, labels: Tensor, images: int) -> Tensor:
        """This rank's part of the mean loss over all `images` of the batch, and of the correct predictions."""
        self._optimizer.zero_grad()
        with torch.autocast(batch.device.type, self._dtype, enabled=self._dtype != torch.float32):
            output = network(batch.contiguous(memory_format=self._layout))
        logits = self._check_logits(output, len(batch)).float()
        weight, smoothing = float(self._processes.has_images(images)), self._recipe.label_smoothing
        part = weight * cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum") / images
        (part * self._processes.count).backward()  # gradients are averaged over the processes
        self._optimizer.step()
        with torch.no_grad():
            hits = weight * (logits.argmax(dim=1) == labels).sum()
            return torch.stack([part.detach(), hits])

    def _check_logits(self, output: object, images: int) -> Tensor:
        """The output if it is logits: `build_network` has checked this in evaluation mode only."""
        if isinstance(output, Tensor) and output.dim() == 2 and len(output) == images:
            return output
        raise InputError(
            f"model {self._recipe.model}",
            expected=f"logits [{images}, classes] in training mode too",
            got=str(list(output.shape) if isinstance(output, Tensor) else type(output).__name__),
            advice="return only logits in both modes",
        )


def _check_channels_last(network: nn.Module, model: str) -> None:
    """Raise InputError if the network's code depends on contiguous images, as `view` may."""
    device = next(network.parameters()).device
    images = torch.zeros(2, 3, 32, 32, device=device)
    try:
        with fixed_seed(0, device), eval_mode(network):
            network(images.contiguous(memory_format=torch.channels_last))
    except RuntimeError as error:
        message = " ".join(str(error).split())
        if not message.startswith("view size is not compatible"):
            raise
        raise InputError(
            f"model {model}",
            expected=f"a network that takes images in {torch.channels_last}",
            got=message,
            advice="use flatten or reshape instead of view, or give --precision float32",
        ) from None


def select_steps(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    before_step: BeforeStep,
    processes: ProcessGroup,
) -> Steps:
    """The fastest steps for a recipe and a network on its device: by hand-written gradients twice as fast."""
    device = next(network.parameters()).device
    extras = recipe.nesterov or recipe.weight_decay or recipe.label_smoothing or recipe.schedule != "constant"
    if (
        recipe.model == RECIPES["tutorial"].model  # a subclass may compute something else
        and isinstance(network, Net)
        and isinstance(optimizer, torch.optim.SGD)
        and recipe.batch_size <= TINY_BATCH
        and processes.count == 1
        and device.type == "cpu"
        and precision_for(device, recipe.precision) == torch.float32
        and not extras
    ):
        trainer = ManualTrainer(network, optimizer, recipe.batch_size)
        return lambda inputs_nchw, targets, _: trainer.train_chunk(inputs_nchw, targets)
    return AutogradSteps(network, optimizer, recipe, before_step, processes)
