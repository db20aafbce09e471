"""What the tests of a store on disk or in a bucket share."""

from collections.abc import Callable

import pytest
from places import Place
from tiny_artifacts import finished_run


@pytest.fixture
def finished(place: Place) -> Callable[..., str]:
    """Finishes a run of the given word and policy; its id."""

    def finish_run(word: str, policy: str = "auto") -> str:
        return finished_run(place.location, word, policy=policy).record.run  # type: ignore[arg-type]

    return finish_run
