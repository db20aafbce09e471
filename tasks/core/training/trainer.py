"""The training loop: the tutorial's, for any recipe, from memory, resumable to the bit.

All that is drawn follows from the seed and the epoch, so where training stands is told by weights, optimizer, the
state of what a network draws from, a place in an epoch, and the results of the steps since the last point of the curve.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from math import ceil, isfinite
from typing import Any

import torch
from torch import Tensor, nn

from tasks.core.data.dataset import expand
from tasks.core.errors import InputError
from tasks.core.models.factory import NeedsPreparation
from tasks.core.recipes import Recipe
from tasks.core.runtime.device import Hardware
from tasks.core.runtime.seeding import random_state, set_random_state
from tasks.core.training.augmentation import augment
from tasks.core.training.curve import TrainingPoint
from tasks.core.training.data import Images, LossAndAccuracy, measure
from tasks.core.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from tasks.core.training.monitor import STOPS, Monitor, Progress
from tasks.core.training.optimizers import new_optimizer, rate_factor, set_rate
from tasks.core.training.steps import Steps, select_steps

IMAGES_PER_POINT = 8_000  # 2,000 of the tutorial's batches of 4
IMAGES_PER_STRETCH = 256  # at most, after which checkpoints, interruptions and progress have their turn
IMAGES_PER_STRETCH_ON_GPU = 4_000  # which takes them sooner, and is kept waiting by each turn
SHORT_S, LONG_S = 0.1, 1.0  # for a stretch
IMAGES_TO_PREPARE = 5_000


@dataclass(frozen=True)
class Training:
    """What is to be trained: all that weights follow from beside the images."""

    recipe: Recipe
    seed: int
    hardware: Hardware
    validation: int = 0


@dataclass
class Place:
    """Where training stands: `images` of an epoch are done; `latest` holds loss and hits of each step [n, 2]
    since the last point.
    """

    epoch: int = 1
    images: int = 0
    step: int = 0
    latest: list[Tensor] = field(default_factory=list)
    curve: list[TrainingPoint] = field(default_factory=list)


class Trainer:
    """Trains a network in place; the curve has a point for each 8,000 images and for each epoch's end."""

    def __init__(
        self,
        network: nn.Module,
        images: Images,
        held_out: Images,
        training: Training,
        workers: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.network, self.images, self.held_out = network, images, held_out
        self.recipe, self.seed, self.device = training.recipe, training.seed, training.hardware.device
        self.workers = workers
        self.optimizer = new_optimizer(network, self.recipe)
        self.steps_an_epoch = ceil(len(images) / self.recipe.batch_size)
        epochs_steps = self.recipe.epochs * self.steps_an_epoch
        self.steps_in_all = min(epochs_steps, self.recipe.steps or epochs_steps)
        self.place = Place()
        images_at_once = IMAGES_PER_STRETCH_ON_GPU if self.device.type == "cuda" else IMAGES_PER_STRETCH
        self.most_steps_at_once = max(1, images_at_once // self.recipe.batch_size)
        self.steps_at_once = 1
        self.due: Callable[[], None] | None = None  # adds a point to the curve
        self.recent = torch.zeros(0, 2), 0  # the results of the latest stretch, and its images

    def run(self, watch: Monitor) -> list[TrainingPoint]:
        """Take every step that is left."""
        if state := watch.saved_state(self.device):
            self.restore(state)
            watch.log(f"training goes on from {self.place_in_words()}, where it was interrupted")
        elif isinstance(self.network, NeedsPreparation):
            self.network.prepare_on_training_images(self.images.inputs(0, IMAGES_TO_PREPARE))
        steps = select_steps(self.network, self.optimizer, self.recipe, self._before_step, self.workers)
        with watch.heard_between_layers(self.network) if self.device.type == "cpu" else nullcontext():
            for order in self._orders():
                self._epoch(order, steps, watch)
                self.place.epoch, self.place.images = self.place.epoch + 1, 0
        self._add_due_point()
        return self.place.curve

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on as if nothing had happened, but for what MPS draws by itself."""
        self._add_due_point()
        place = self.place
        return {
            "network": self.network.state_dict(),
            "buffers": self._unsaved_buffers(),
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(self.device),
            "place": (place.epoch, place.images, place.step),
            "latest": torch.cat([torch.zeros(0, 2, device=self.device), *place.latest]),
            "curve": [tuple(point) for point in place.curve],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        for name, buffer in state["buffers"].items():
            owner, _, own_name = name.rpartition(".")
            setattr(self.network.get_submodule(owner), own_name, buffer)
        self.optimizer.load_state_dict(state["optimizer"])
        set_random_state(state["random"], self.device)
        epoch, images, step = state["place"]
        curve = [TrainingPoint(*point) for point in state["curve"]]
        self.place = Place(epoch, images, step, [state["latest"]], curve)

    def _unsaved_buffers(self) -> dict[str, Tensor]:
        """What a network keeps for itself while it is trained, and leaves out of its `state_dict`."""
        saved = self.network.state_dict()
        return {name: buffer for name, buffer in self.network.named_buffers() if name not in saved}

    def place_in_words(self) -> str:
        place = self.place
        return f"epoch {place.epoch}, step {self._step_of(place.epoch, place.step):,} of {self.steps_an_epoch:,}"

    def _step_of(self, epoch: int, step: int) -> int:
        """Which one of an epoch's steps one of all is."""
        return step - (epoch - 1) * self.steps_an_epoch

    def _orders(self) -> Iterator[Tensor]:
        """The order of the images in each epoch that is left; the last one may be cut short."""
        generator = torch.Generator().manual_seed(self.seed)
        for epoch in range(1, ceil(self.steps_in_all / self.steps_an_epoch) + 1):
            order = torch.randperm(len(self.images), generator=generator)
            left = self.steps_in_all - (epoch - 1) * self.steps_an_epoch
            if epoch >= self.place.epoch:
                yield order[: left * self.recipe.batch_size].to(self.device)

    def _epoch(self, order: Tensor, steps: Steps, watch: Monitor) -> None:
        place, size = self.place, self.recipe.batch_size
        to_point = max(1, IMAGES_PER_POINT // size) * size
        self.network.train()
        while place.images < len(order):
            watch.begin()
            start, next_point = place.images, min((place.images // to_point + 1) * to_point, len(order))
            stop = min(start + self.steps_at_once * size, next_point)
            self.recent = self._stretch(order[start:stop], steps), stop - start
            self._add_due_point()
            place.latest.append(self.recent[0])
            place.images, place.step = stop, place.step + ceil((stop - start) / size)
            if stop == next_point:
                since = stop - (stop - 1) // to_point * to_point
                self._end_point(watch, since, at_epochs_end=stop == len(order))
            stopping, stretch_s = self.workers.agree(watch.stop_request.asked, watch.stretch_s)
            self._adjust_stretch(stretch_s)
            self._pause(watch, at_epochs_end=stop == len(order), stopping=stopping)

    def _stretch(self, order: Tensor, steps: Steps) -> Tensor:
        """Train on images, given by their places in the training set."""
        augmented = augment(self.images.images[order], order, self.place.epoch, self.recipe, self.seed)
        return steps.take(expand(augmented, self.images.normalization), self.images.labels[order], self.place.step)

    def _adjust_stretch(self, latest_s: float) -> None:
        """Have stretches of steps that are short enough to be interrupted soon, and long enough not to cost by it."""
        if latest_s > LONG_S:
            self.steps_at_once = max(1, self.steps_at_once // 2)
        elif latest_s < SHORT_S:
            self.steps_at_once = min(2 * self.steps_at_once, self.most_steps_at_once)

    def _pause(self, watch: Monitor, *, at_epochs_end: bool, stopping: bool) -> None:
        """Let what goes on beside training have its turn."""
        if self.workers.is_rank_0:
            watch.keep(self.state, at_epochs_end=at_epochs_end, now=stopping)
            watch.show_progress(self._progress, at_end=self.place.step == self.steps_in_all)
        if stopping:
            watch.log(f"{STOPS} at {self.place_in_words()}; run the same command again to go on from there")
            watch.stop_request.act()

    def _progress(self) -> Progress:
        place, (results, images) = self.place, self.recent
        validated = [p.validation_accuracy for p in place.curve if p.validation_accuracy is not None]
        return Progress(
            images_done=self._images_before(place.step),
            images_in_all=self._images_before(self.steps_in_all),
            loss=results[:, 0].mean().item(),
            accuracy=results[:, 1].sum().item() / images,
            validation_accuracy=validated[-1] if validated else None,
        )

    def _images_before(self, step: int) -> int:
        """How many images are trained on in the steps before one, counted from 0 over all epochs."""
        epochs, steps = divmod(step, self.steps_an_epoch)
        return epochs * len(self.images) + steps * self.recipe.batch_size

    def _end_point(self, watch: Monitor, since: int, *, at_epochs_end: bool) -> None:
        """End the steps since the last point, on `since` images, with one on the curve.

        It is added when the next steps are under way: a GPU that is asked for its numbers before would have to wait.
        """
        place = self.place
        results, place.latest = torch.cat(place.latest), []
        found = measure(self.network, self.held_out) if at_epochs_end and len(self.held_out) else None
        self.due = partial(self._add_point, watch, results, since, place.epoch, place.step, found)
        if self.device.type == "cpu":
            self._add_due_point()

    def _add_due_point(self) -> None:
        due, self.due = self.due, None
        if due:
            due()

    def _add_point(
        self, watch: Monitor, results: Tensor, since: int, epoch: int, step: int, found: LossAndAccuracy | None
    ) -> None:
        step_of_epoch = self._step_of(epoch, step)
        losses, hits = results.cpu().double().unbind(1)
        loss, accuracy = losses.mean().item(), hits.sum().item() / since
        if not isfinite(loss):
            advice = f"give a learning rate below {self.recipe.learning_rate}"
            if self.recipe.optimizer == "muon":  # which has rates that follow from the batch size, too
                advice += f", or batches below {self.recipe.batch_size}"
            raise InputError(
                f"training: expected a finite loss, got {loss} by step {step_of_epoch} of epoch {epoch}; {advice}"
            )
        said = f"[{epoch}, {step_of_epoch:5d}] loss: {loss:.3f}"
        watch.log(f"{said}, held out: {found.loss:.3f}, {found.accuracy:.1%} right" if found else said)
        rate = self.optimizer.param_groups[0]["initial_lr"] * rate_factor(self.recipe, step - 1, self.steps_in_all)
        measures = (found.loss, found.accuracy) if found else (None, None)
        self.place.curve.append(TrainingPoint(step, epoch, loss, rate, accuracy, *measures))

    def _before_step(self, step: int) -> None:
        self.workers.seed_rank(self.seed, step)
        set_rate(self.optimizer, self.recipe, step, self.steps_in_all)
