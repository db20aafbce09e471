"""How the store's decisions show in Prefect."""

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.core.artifact import Outcome


def shown(*outcomes: Outcome) -> State[Any]:
    """Outcomes as a task's final state, whose result is their references.

    What was reused shows as Cached in logs and UI, as if Prefect's own cache had been asked.
    """
    refs = tuple(outcome.ref for outcome in outcomes)
    return Completed(
        name="Cached" if all(outcome.reused for outcome in outcomes) else "Completed",
        message=", ".join(outcome.message for outcome in outcomes),
        data=refs[0] if len(refs) == 1 else refs,
    )
