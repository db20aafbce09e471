"""The promotion log: promoted and rolled back runs, and torn lines after a power cut."""

import json

import pytest
from places import BUCKET_IN_SOAK, Place
from promotions import actions, files_of, finished, root_files
from tiny_artifacts import finished_run

from tasks.core.store.promotion_log import LogEntry, rollback_reasons, standing_runs


def entries(*lines: str) -> list[LogEntry]:
    """A log from lines like `promote a`, `refuse b` and `rollback a instead of c`."""
    log_entries = []
    for line in lines:
        action, run, *rest = line.split()
        log_entries.append(
            LogEntry(action=action, run=run, at="", who="", why=line, instead_of=rest[-1] if rest else None)
        )
    return log_entries


@pytest.mark.parametrize(
    ("lines", "standing", "rolled_back"),
    [
        ([], [], []),
        (["refuse a"], [], []),
        (["promote a", "promote b", "refuse c"], ["a", "b"], []),
        (["promote a", "promote b", "promote a"], ["b", "a"], []),
        (["promote a", "promote b", "rollback a instead of b"], ["a"], ["b"]),
        (["promote a", "promote b", "rollback a instead of b", "promote b"], ["a", "b"], []),
        (["promote a", "promote b", "rollback a instead of b", "refuse b"], ["a"], ["b"]),
        (["promote a", "promote b", "rollback a instead of b", "promote c"], ["a", "c"], ["b"]),
        (
            ["promote a", "promote b", "promote c", "rollback b instead of c", "rollback a instead of b"],
            ["a"],
            ["c", "b"],
        ),
        (
            ["promote a", "promote b", "promote a", "rollback b instead of a"],
            ["b"],
            ["a"],
        ),
    ],
)
def test_promoted_and_rolled_back_runs_follow_from_the_log(
    lines: list[str], standing: list[str], rolled_back: list[str]
) -> None:
    log = entries(*lines)

    assert standing_runs(log) == standing
    assert list(rollback_reasons(log)) == rolled_back
    assert all(f"instead of {run}" in why for run, why in rollback_reasons(log).items())


# Torn lines after a power cut


@BUCKET_IN_SOAK
@pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
def test_a_torn_last_line_loses_only_itself(place: Place, left: float) -> None:
    finished(place, "one")
    finished_run(place.location, "two", policy="never")
    lines = place.read("promotions.jsonl").splitlines(keepends=True)
    torn = lines[1][: int(len(lines[1]) * left)]
    place.write("promotions.jsonl", lines[0] + torn)

    finished(place, "three")

    first, second, third = place.read("promotions.jsonl").splitlines()
    assert first == lines[0].rstrip()
    assert second == torn
    assert json.loads(third)["action"] == "promote"


@BUCKET_IN_SOAK
@pytest.mark.parametrize("left", [0, 0.5, 0.99])
def test_the_torn_line_of_the_current_promotion_is_restored(place: Place, left: float) -> None:
    [record] = finished(place, "one")
    whole = place.read("promotions.jsonl")
    place.write("promotions.jsonl", whole[: int(len(whole) * left)])

    for _ in range(2):
        place.open()

    lines = place.read("promotions.jsonl").splitlines(keepends=True)
    assert lines[-1] == whole
    assert json.loads(lines[-1])["run"] == record.run
    assert len(lines) == (1 if left == 0 else 2)


@BUCKET_IN_SOAK
def test_a_line_without_its_newline_is_not_written_twice(place: Place) -> None:
    finished(place, "one")
    place.write("promotions.jsonl", place.read("promotions.jsonl").rstrip(b"\n"))

    finished(place, "two")

    assert actions(place) == ["promote", "promote"]


@BUCKET_IN_SOAK
@pytest.mark.parametrize("garbage", [b"\0" * 40, b"\xff\xfe\x80"], ids=["zeros", "no text"])
def test_garbage_at_the_end_of_the_log_does_not_stop_promotions(place: Place, garbage: bytes) -> None:
    finished(place, "one")
    place.write("promotions.jsonl", place.read("promotions.jsonl") + garbage)

    finished(place, "two")

    assert root_files(place) == files_of("two")
    assert json.loads(place.read("promotions.jsonl").splitlines()[-1])["action"] == "promote"
