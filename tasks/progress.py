"""How far training is: a bar on a terminal, and an artifact in Prefect's UI."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.console import Console

from tasks.core.store.artifact import Log
from tasks.core.training.bar import bar_on
from tasks.core.training.watch import Progress, ShowProgress

UPDATE_EVERY_S = 3.0  # an update takes about 10 ms


@contextmanager
def shown_progress(logger: Any) -> Iterator[tuple[ShowProgress, Log]]:
    """What shows how far training is, and what says a line beside it."""
    console, in_ui = Console(stderr=True), _in_ui(logger)
    if not console.is_terminal:
        yield in_ui, logger.info
        return
    with bar_on(console, logger.info) as (on_terminal, say):
        yield lambda progress: (on_terminal(progress), in_ui(progress))[0], say


def _in_ui(logger: Any) -> ShowProgress:
    """Moves a progress artifact every few seconds; a server that is lost ends that, and no more than that."""
    artifact: UUID | None = None
    next_at = 0.0

    def show(progress: Progress) -> None:
        nonlocal artifact, next_at
        if time.monotonic() < next_at:
            return
        percent = 100 * progress.images_done / progress.images_in_all
        try:
            if artifact is None:
                artifact = UUID(str(create_progress_artifact(percent, key="training", description="Training")))
            update_progress_artifact(artifact, percent)
            next_at = time.monotonic() + UPDATE_EVERY_S
        except Exception as error:  # noqa: BLE001 - the UI is no reason to lose hours of training
            logger.warning(f"Prefect's UI no longer shows how far training is: {error}")
            next_at = float("inf")

    return show
