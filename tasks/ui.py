"""How the library's decisions and errors show in Prefect."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.core.errors import CifarFlowError
from tasks.core.store.artifact import Outcome


def completed_state(*outcomes: Outcome) -> State[Any]:
    """Outcomes as a task's final state, whose result is their references.

    What was reused shows as Cached in logs and UI, as if Prefect's own cache had been asked.
    """
    refs = tuple(outcome.ref for outcome in outcomes)
    return Completed(
        name="Cached" if all(outcome.reused for outcome in outcomes) else "Completed",
        message=", ".join(outcome.message for outcome in outcomes),
        data=refs[0] if len(refs) == 1 else refs,
    )


@contextmanager
def best_effort(logger: Any, what: str) -> Iterator[None]:
    """Show something in Prefect's UI: the files are safe, and a server that is gone must not undo the run."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever Prefect's client raises
        logger.warning(f"Prefect's UI does not show {what}: {error}")


def _without_expected_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], CifarFlowError):
        record.exc_info = None
    return True


# An expected error says all there is to say in its message; Prefect would log its traceback twice.
for _logger in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_logger).addFilter(_without_expected_traceback)
