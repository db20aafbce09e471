"""How far training is: a bar on a terminal, and an artifact in Prefect's UI."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from tasks.core.store.artifact import Log
from tasks.core.training.monitor import Progress, ProgressCallback
from tasks.core.training.progress_bar import progress_bar
from tasks.ui_progress import ui_progress_artifact


@contextmanager
def training_progress(logger: Any) -> Iterator[tuple[ProgressCallback, Log]]:
    """What shows how far training is, and what says a line beside it."""
    console = Console(stderr=True)
    with ui_progress_artifact(logger, "training") as count:

        def in_ui(progress: Progress) -> None:
            count(progress.images_done, progress.images_in_all)

        if not console.is_terminal:
            yield in_ui, logger.info
            return
        with progress_bar(console, logger.info) as (on_terminal, say):

            def in_both(progress: Progress) -> None:
                on_terminal(progress)
                in_ui(progress)

            yield in_both, say
