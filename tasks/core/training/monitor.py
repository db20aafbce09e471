"""What happens between training steps: progress and checkpoints."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.core.training.checkpoint import Checkpoint

CHECKPOINT_EVERY_S = 8.0
FRESH_CHECKPOINT_S = 1.0  # the end of an epoch does not replace a checkpoint this young
PROGRESS_EVERY_S = 0.5


@dataclass(frozen=True)
class Progress:
    """How far training is; loss and accuracy (0 to 1) are those of the latest steps."""

    images_done: int
    total_images: int
    loss: float
    accuracy: float
    held_out_accuracy: float | None

    def __str__(self) -> str:
        held_out = "" if self.held_out_accuracy is None else f", held-out accuracy {self.held_out_accuracy:.1%}"
        return f"loss {self.loss:.3f}, accuracy {self.accuracy:.1%}{held_out}"


ProgressCallback = Callable[[Progress], None]


@dataclass
class Monitor:
    """Shows the progress of a training and writes its checkpoints."""

    show: ProgressCallback | None = None
    checkpoint: Checkpoint | None = None
    _saved_at: float = field(default_factory=time.monotonic)
    _shown_at: float = 0.0

    def show_progress(self, progress: Callable[[], Progress], *, at_end: bool) -> None:
        """Call the progress callback every half second and at the end: computing progress makes a GPU wait."""
        if self.show and (at_end or time.monotonic() - self._shown_at > PROGRESS_EVERY_S):
            self.show(progress())
            self._shown_at = time.monotonic()

    def save_if_due(self, state: Callable[[], Mapping[str, Any]], *, at_epoch_end: bool) -> None:
        """Write a checkpoint every eight seconds and at the end of an epoch."""
        age_s = time.monotonic() - self._saved_at
        is_due = age_s > CHECKPOINT_EVERY_S or (at_epoch_end and age_s > FRESH_CHECKPOINT_S)
        if self.checkpoint and is_due:
            self.checkpoint.save(state())
            self._saved_at = time.monotonic()
