"""What goes on beside training: lines in the log, progress, checkpoints, and the wish to stop."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.jit import ScriptModule

from tasks.core.store.artifact import Log
from tasks.core.training.checkpoint import Checkpoint, DamagedCheckpoint
from tasks.core.training.signals import StopRequest, deferred_signals

CHECKPOINT_EVERY_S = 8.0
FRESH_S = 1.0  # an epoch that ends so soon after a checkpoint writes none
PROGRESS_EVERY_S = 0.5
PATIENCE_S = 0.5  # for what is under way on a CPU when training is to stop
STOPS = "training stops"
STOPPED_LATE = f"{STOPS} without what is under way; run the same command again to go on from what was saved"


@dataclass(frozen=True)
class Progress:
    """How far training is; loss and accuracy (in [0, 1]) are of the latest steps."""

    images_done: int
    images_in_all: int
    loss: float
    accuracy: float
    validation_accuracy: float | None


ProgressCallback = Callable[[Progress], None]


@dataclass
class Monitor:
    """Has its turn after every stretch of steps."""

    log: Log
    show: ProgressCallback | None = None
    checkpoint: Checkpoint | None = None
    stop_request: StopRequest = field(default_factory=StopRequest)
    _saved_at: float = field(default_factory=time.monotonic)
    _shown_at: float = 0.0
    _began_at: float = field(default_factory=time.monotonic)

    def saved_state(self, device: torch.device) -> dict[str, Any] | None:
        """Where an earlier process left off, if it did and its checkpoint is whole."""
        if self.checkpoint is None:
            return None
        try:
            return self.checkpoint.load(device)
        except DamagedCheckpoint as error:
            self.log(f"{error}; training starts from the beginning")
            return None

    def begin(self) -> None:
        """Note that the next stretch of steps begins, from which on the wish to stop waits for what is under way."""
        self.stop_request.can_wait = True
        self._began_at = time.monotonic()

    @property
    def stretch_s(self) -> float:
        """How long the stretch of steps has taken so far."""
        return time.monotonic() - self._began_at

    @contextmanager
    def heard_between_layers(self, network: nn.Module) -> Iterator[None]:
        """Have the wish to stop heard between a network's layers, too: on a CPU a step may take many seconds.

        Steps that are then given up are lost, as they would be with a kill.
        """
        layers = [module for module in network.modules() if not list(module.children())]
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        hookable = [layer for layer in layers if not isinstance(layer, ScriptModule)]
        handles = [layer.register_forward_hook(self._stop_if_late) for layer in hookable]
        handles += [parameter.register_post_accumulate_grad_hook(self._stop_if_late) for parameter in trained]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _stop_if_late(self, *_: object) -> None:
        if self.stretch_s > PATIENCE_S:
            self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Stop without what is under way, if that is the wish."""
        if self.stop_request.asked:
            self.log(STOPPED_LATE)
            self.stop_request.act()

    def show_progress(self, progress: Callable[[], Progress], *, at_end: bool) -> None:
        """Show how far it is, unless that was shown a moment ago and there is more to come: asking stops a GPU."""
        if self.show and (at_end or time.monotonic() - self._shown_at > PROGRESS_EVERY_S):
            self.show(progress())
            self._shown_at = time.monotonic()

    def keep(self, state: Callable[[], Mapping[str, Any]], *, at_epochs_end: bool, now: bool) -> None:
        """Write a checkpoint if one is due."""
        age = time.monotonic() - self._saved_at
        if self.checkpoint and (now or age > CHECKPOINT_EVERY_S or (at_epochs_end and age > FRESH_S)):
            self.checkpoint.save(state())
            self._saved_at = time.monotonic()


@contextmanager
def monitoring(log: Log, unfinished: Path, show: ProgressCallback | None) -> Iterator[Monitor]:
    """A watch that keeps checkpoints in the folder `unfinished`, and holds interruptions back once training begins."""
    with deferred_signals() as stop_request:
        stop_request.can_wait = False
        watch = Monitor(log, show, Checkpoint(unfinished), stop_request)
        yield watch
        watch.stop_if_asked()  # after the last step, too
