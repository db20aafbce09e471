"""The training loop, for any recipe; a resumed training ends with the same bits.

Shuffling and augmentation follow from the seed and the epoch. A checkpoint holds everything else: weights, optimizer,
random state, the position in the epoch, and the results of the steps since the last point of the learning curve.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, isfinite
from typing import Any

import torch
from torch import Tensor, nn

from tasks.core.data.dataset import normalize_images
from tasks.core.errors import InputError
from tasks.core.models.factory import NeedsPreparation
from tasks.core.recipes import Recipe
from tasks.core.runtime.device import Hardware
from tasks.core.runtime.logs import logger
from tasks.core.runtime.seeding import get_random_state, set_random_state
from tasks.core.training.augmentation import augment
from tasks.core.training.curve import TrainingPoint
from tasks.core.training.data import Images, measure
from tasks.core.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from tasks.core.training.monitor import Monitor, Progress
from tasks.core.training.optimizers import build_optimizer, rate_factor, set_learning_rate
from tasks.core.training.steps import Steps, select_steps

IMAGES_PER_POINT = 8_000  # 2,000 of the tutorial's batches of 4
# A chunk is the steps between two turns of checkpoint and progress; each turn makes a GPU wait.
MAX_IMAGES_PER_CHUNK = 256
MAX_IMAGES_PER_CHUNK_ON_GPU = 4_000
SHORT_CHUNK_S, LONG_CHUNK_S = 0.1, 1.0
IMAGES_TO_PREPARE = 5_000


@dataclass(frozen=True)
class Training:
    """What the weights follow from, besides the images; `validation` training images are held out."""

    recipe: Recipe
    seed: int
    hardware: Hardware
    validation: int = 0


class Trainer:
    """Trains a network in place; the learning curve has a point every 8,000 images and at the end of each epoch."""

    def __init__(
        self,
        network: nn.Module,
        images: Images,
        held_out: Images,
        training: Training,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.network, self.images, self.held_out = network, images, held_out
        self.recipe, self.seed, self.device = training.recipe, training.seed, training.hardware.device
        self.processes = processes
        self.optimizer = build_optimizer(network, self.recipe)
        self.steps_per_epoch = ceil(len(images) / self.recipe.batch_size)
        epoch_steps = self.recipe.epochs * self.steps_per_epoch
        self.total_steps = min(epoch_steps, self.recipe.steps or epoch_steps)
        self.epoch, self.images_done, self.step = 1, 0, 0  # images of this epoch, steps of all epochs
        self.results: list[Tensor] = []  # loss and hits [steps, 2] since the last point of the learning curve
        self.curve: list[TrainingPoint] = []
        self.pending_point: Callable[[], None] | None = None
        self.chunk_results, self.chunk_images = torch.zeros(0, 2), 0
        max_images = MAX_IMAGES_PER_CHUNK_ON_GPU if self.device.type == "cuda" else MAX_IMAGES_PER_CHUNK
        self.max_steps_per_chunk = max(1, max_images // self.recipe.batch_size)
        self.steps_per_chunk = 1

    def run(self, monitor: Monitor) -> list[TrainingPoint]:
        """Take all steps, or those after the checkpoint if there is one."""
        if monitor.checkpoint and (state := monitor.checkpoint.load(self.device)):
            self.restore(state)
            step = f"{self._step_of_epoch(self.epoch, self.step):,} of {self.steps_per_epoch:,}"
            logger.info(f"train: resuming from epoch {self.epoch}, step {step}")
        elif isinstance(self.network, NeedsPreparation):
            self.network.prepare_on_training_images(self.images.inputs(0, IMAGES_TO_PREPARE))
        take_steps = select_steps(self.network, self.optimizer, self.recipe, self._before_step, self.processes)
        for order in self._remaining_orders():
            self._train_epoch(order, take_steps, monitor)
            self.epoch, self.images_done = self.epoch + 1, 0
        self._add_pending_point()
        return self.curve

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, except MPS's own random state."""
        self._add_pending_point()
        network = self.network.state_dict()
        return {
            "network": network,
            "unsaved_buffers": {name: each for name, each in self.network.named_buffers() if name not in network},
            "optimizer": self.optimizer.state_dict(),
            "random": get_random_state(self.device),
            "position": (self.epoch, self.images_done, self.step),
            "results": torch.cat([torch.zeros(0, 2, device=self.device), *self.results]),
            "curve": [tuple(point) for point in self.curve],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state` returned."""
        self.network.load_state_dict(state["network"])
        for name, buffer in state["unsaved_buffers"].items():
            owner, _, own_name = name.rpartition(".")
            setattr(self.network.get_submodule(owner), own_name, buffer)
        self.optimizer.load_state_dict(state["optimizer"])
        set_random_state(state["random"], self.device)
        self.epoch, self.images_done, self.step = state["position"]
        self.results = [state["results"]]
        self.curve = [TrainingPoint(*point) for point in state["curve"]]

    def _step_of_epoch(self, epoch: int, step: int) -> int:
        return step - (epoch - 1) * self.steps_per_epoch

    def _remaining_orders(self) -> Iterator[Tensor]:
        """The shuffled indices of the images for each remaining epoch; a limit on steps may shorten the last one."""
        generator = torch.Generator().manual_seed(self.seed)
        for epoch in range(1, ceil(self.total_steps / self.steps_per_epoch) + 1):
            order = torch.randperm(len(self.images), generator=generator)
            steps_left = self.total_steps - (epoch - 1) * self.steps_per_epoch
            if epoch >= self.epoch:
                yield order[: steps_left * self.recipe.batch_size].to(self.device)

    def _train_epoch(self, order: Tensor, take_steps: Steps, monitor: Monitor) -> None:
        batch_size = self.recipe.batch_size
        images_per_point = max(1, IMAGES_PER_POINT // batch_size) * batch_size
        self.network.train()
        while self.images_done < len(order):
            started = time.monotonic()
            next_point = min((self.images_done // images_per_point + 1) * images_per_point, len(order))
            stop = min(self.images_done + self.steps_per_chunk * batch_size, next_point)
            self._train_chunk(order[self.images_done : stop], take_steps)
            at_epoch_end = stop == len(order)
            if stop == next_point:
                point_images = stop - (stop - 1) // images_per_point * images_per_point
                self._finish_point(point_images, at_epoch_end=at_epoch_end)
            self._adapt_chunks(self.processes.longest(time.monotonic() - started))
            if self.processes.is_rank_0:
                monitor.save_if_due(self.state, at_epoch_end=at_epoch_end)
                monitor.show_progress(self._progress, at_end=self.step == self.total_steps)

    def _train_chunk(self, order: Tensor, take_steps: Steps) -> None:
        augmented = augment(self.images.images[order], order, self.epoch, self.recipe, self.seed)
        inputs = normalize_images(augmented, self.images.normalization)
        self.chunk_results = take_steps(inputs, self.images.labels[order], self.step)
        self.chunk_images = len(order)
        self._add_pending_point()
        self.results.append(self.chunk_results)
        self.images_done += len(order)
        self.step += ceil(len(order) / self.recipe.batch_size)

    def _adapt_chunks(self, chunk_s: float) -> None:
        """Keep chunks short enough for timely checkpoints, and long enough to cost little."""
        if chunk_s > LONG_CHUNK_S:
            self.steps_per_chunk = max(1, self.steps_per_chunk // 2)
        elif chunk_s < SHORT_CHUNK_S:
            self.steps_per_chunk = min(2 * self.steps_per_chunk, self.max_steps_per_chunk)

    def _progress(self) -> Progress:
        accuracies = [p.validation_accuracy for p in self.curve if p.validation_accuracy is not None]
        return Progress(
            images_done=self._images_before(self.step),
            total_images=self._images_before(self.total_steps),
            loss=self.chunk_results[:, 0].mean().item(),
            accuracy=self.chunk_results[:, 1].sum().item() / self.chunk_images,
            held_out_accuracy=accuracies[-1] if accuracies else None,
        )

    def _images_before(self, step: int) -> int:
        """The number of images that the steps before this one (from 0, over all epochs) train on."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        return epochs * len(self.images) + steps * self.recipe.batch_size

    def _finish_point(self, images: int, *, at_epoch_end: bool) -> None:
        """Make a point of the learning curve from the steps since the last one, on so many `images`.

        On a GPU the point is added once the next steps are launched: reading its numbers earlier would idle the GPU.
        """
        results, self.results = torch.cat(self.results), []
        held_out = measure(self.network, self.held_out) if at_epoch_end and len(self.held_out) else ()
        self.pending_point = partial(self._add_point, results, images, self.epoch, self.step, held_out)
        if self.device.type == "cpu":
            self._add_pending_point()

    def _add_pending_point(self) -> None:
        add_point, self.pending_point = self.pending_point, None
        if add_point:
            add_point()

    def _add_point(self, results: Tensor, images: int, epoch: int, step: int, held_out: Sequence[float]) -> None:
        step_of_epoch = self._step_of_epoch(epoch, step)
        losses, hits = results.cpu().double().unbind(1)
        loss, accuracy = losses.mean().item(), hits.sum().item() / images
        if not isfinite(loss):
            advice = f"give a learning rate below {self.recipe.learning_rate}"
            if self.recipe.optimizer == "muon":  # some of its learning rates follow from the batch size
                advice += f", or batches below {self.recipe.batch_size}"
            got = f"{loss} by step {step_of_epoch} of epoch {epoch}"
            raise InputError("training", expected="a finite loss", got=got, advice=advice)
        line = f"[{epoch}, {step_of_epoch:5d}] loss: {loss:.3f}"
        if held_out:
            line += f", held-out loss: {held_out[0]:.3f}, held-out accuracy: {held_out[1]:.1%}"
        logger.info(line)
        rate = self.optimizer.param_groups[0]["initial_lr"] * rate_factor(self.recipe, step - 1, self.total_steps)
        self.curve.append(TrainingPoint(step, epoch, loss, rate, accuracy, *held_out))

    def _before_step(self, step: int) -> None:
        self.processes.seed_rank(self.seed, step)
        set_learning_rate(self.optimizer, self.recipe, step, self.total_steps)
