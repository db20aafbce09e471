"""How outcomes and errors of the library show in Prefect's UI."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

import tasks.run_logs  # noqa: F401 - forwards the library's log lines to Prefect
from tasks.core.runtime.logs import logger
from tasks.core.store.artifact import Outcome


def completed_state(*outcomes: Outcome) -> State[Any]:
    """A task's final state with the references of its artifacts; Cached in logs and UI if all were cache hits."""
    refs = tuple(outcome.ref for outcome in outcomes)
    return Completed(
        name="Cached" if all(outcome.is_cache_hit for outcome in outcomes) else "Completed",
        message=", ".join(outcome.message for outcome in outcomes),
        data=refs[0] if len(refs) == 1 else refs,
    )


@contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Only log what Prefect's client raises in this block: a lost server must not fail the run."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever Prefect's client raises
        logger.warning(f"Prefect's UI does not show {what}: {error}")
