"""The promotion gate on real runs: baselines, rolled back results, and repeated runs."""

from itertools import pairwise

import pytest
from places import BUCKET_IN_SOAK, Place, flip_a_bit, overwrite
from tiny_artifacts import baseline_of, build_artifact, finished_run, first_correct, identity_of, run_payloads

from tasks.core.config import Promote
from tasks.core.promotion_gate import RESULT_ARTIFACTS, promotion_gate
from tasks.core.store.current import promote_run, read_current, roll_back
from tasks.core.store.history import find_run
from tasks.core.store.promotion_log import read_log
from tasks.core.store.runs import Run, Score, read_record, recording_run


def scored(place: Place, count: int, word: str = "", policy: Promote = "auto", tolerance: float = 1.0) -> Run:
    """A run that gets `count` images right."""
    word = word or f"{count} right"
    return finished_run(place.location, word, policy=policy, correct=first_correct(count), tolerance=tolerance)


def reporting_run(place: Place, count: int, policy: Promote = "auto") -> Run:
    """A run that gets `count` images right, and whose report shows the reason of the verdict."""
    payloads = run_payloads(f"{count} right", identity_of(), first_correct(count))
    with recording_run(place.open(), {}, {}) as run:
        run.add_artifacts(*(build_artifact(run.store, name, payloads[name]) for name in RESULT_ARTIFACTS))
        with promotion_gate(run, policy, 1.0) as verdict:
            page = f"report, as {verdict.reason}".encode()
            run.add_artifacts(build_artifact(run.store, "report", {"report.html": page, "metrics.json": b"{}"}))
    return run


def is_refused(run: Run) -> bool:
    return run.record.promotion == "refuse"


def current(place: Place) -> str:
    found = read_current(place.open())
    assert found is not None
    return found.run


@BUCKET_IN_SOAK
def test_many_small_losses_cannot_add_up(place: Place) -> None:
    counts = [700, 692, 684, 676, 668]

    refused = [is_refused(scored(place, count)) for count in counts]

    steps = [baseline_of(after, before) for before, after in pairwise(counts)]
    assert not any(
        step.is_candidate_worse(tolerance=1.0) for step in steps
    )  # compared with the latest, all are promoted
    assert refused == [False, False, False, True, True]
    assert [entry.action for entry in read_log(place.open())] == ["promote"] * 3 + ["refuse"] * 2


@BUCKET_IN_SOAK
def test_a_run_is_compared_with_the_best_run_not_the_latest(place: Place) -> None:
    best = scored(place, 700)
    scored(place, 640, policy="always")

    run = scored(place, 660)

    assert is_refused(run)
    assert f"of the best promoted run {best.record.run}:" in str(run.record.verdict)


@BUCKET_IN_SOAK
@pytest.mark.parametrize(("count", "tolerance", "refused"), [(694, 0, True), (0, 100, False)])
def test_the_user_sets_the_tolerance(place: Place, count: int, tolerance: float, refused: bool) -> None:
    scored(place, 700)

    assert is_refused(scored(place, count, tolerance=tolerance)) == refused


def test_score_and_dataset_are_recorded(place: Place) -> None:
    run = scored(place, 650)

    record = read_record(place.open(), run.record.run)

    assert record is not None
    assert record.score == Score(correct=650, images=1000)
    assert record.dataset == identity_of()


@BUCKET_IN_SOAK
def test_a_refused_run_is_no_baseline(place: Place) -> None:
    scored(place, 600)
    scored(place, 900, policy="never")

    assert not is_refused(scored(place, 601))


@BUCKET_IN_SOAK
def test_a_run_on_other_images_is_no_baseline(place: Place) -> None:
    scored(place, 900)
    finished_run(place.location, "other", identity_of(images="other"), "always", correct=first_correct(500))

    run = finished_run(place.location, "again", identity_of(images="other"), correct=first_correct(495))

    assert not is_refused(run)


@BUCKET_IN_SOAK
def test_the_next_best_run_is_the_baseline_if_the_best_is_damaged(place: Place, log: list[str]) -> None:
    best, second = scored(place, 700), scored(place, 690)
    flip_a_bit(place, place.name_of(best.record.artifacts["predictions"], "predictions.parquet"))

    run = finished_run(place.location, "word", correct=first_correct(660))

    assert f"of the best promoted run {second.record.run}:" in str(run.record.verdict)
    assert any(line.startswith(f"promotion gate: run {best.record.run} cannot be compared with: ") for line in log)


@BUCKET_IN_SOAK
def test_the_current_run_stays_if_no_run_can_be_compared(place: Place) -> None:
    best = scored(place, 700)
    place.lose(best.record.artifacts["predictions"])

    run = scored(place, 500)

    assert is_refused(run)
    assert f"run {best.record.run} cannot be compared with: predictions/" in str(run.record.verdict)
    assert not is_refused(scored(place, 500, policy="always"))


@BUCKET_IN_SOAK
def test_a_rolled_back_run_is_no_baseline_and_is_refused(place: Place) -> None:
    scored(place, 600)
    unfair = scored(place, 900, "unfair")
    roll_back(place.open(), find_run(place.open(), "previous"), "it saw the test images")

    fair, unfair_again = scored(place, 610), scored(place, 900, "unfair")

    assert not is_refused(fair)
    assert is_refused(unfair_again)
    why = f"its results are those of run {unfair.record.run}, which was rolled back (it saw the test images)"
    assert why in str(unfair_again.record.verdict)
    assert current(place) == fair.record.run


@BUCKET_IN_SOAK
@pytest.mark.parametrize("policy", ["auto", "never"])
def test_the_current_run_stays_if_repeated_after_a_rollback(place: Place, policy: Promote) -> None:
    """The reason is another one by then, and so is the report, which shows it."""
    one = reporting_run(place, 600)
    reporting_run(place, 610)
    roll_back(place.open(), find_run(place.open(), "previous"), "unfair")

    again, once_more = (reporting_run(place, 600, policy) for _ in range(2))

    assert again.record.verdict == "same results as the current run, which stays: unfair"
    found = read_current(place.open())
    assert found is not None
    assert (found.run, found.action, found.why) == (one.record.run, "rollback", "unfair")
    assert [entry.action for entry in read_log(place.open())] == ["promote", "promote", "rollback"]
    assert found.artifacts == again.record.artifacts == once_more.record.artifacts
    assert place.read("report.html") == b"report, as unfair"


@BUCKET_IN_SOAK
def test_the_current_run_stays_if_a_version_is_rebuilt(place: Place) -> None:
    one = scored(place, 600)
    place.lose(one.record.artifacts["report"])
    overwrite(place, f"{one.record.artifacts['weights']}/manifest.json")

    again = scored(place, 600)

    assert current(place) == one.record.run
    assert again.record.artifacts == one.record.artifacts  # which can be read again
    assert place.open().open(one.record.artifacts["weights"])
    assert [entry.action for entry in read_log(place.open())] == ["promote"]


@BUCKET_IN_SOAK
def test_a_run_promoted_again_is_a_baseline_again(place: Place) -> None:
    scored(place, 600)
    best = scored(place, 900)
    roll_back(place.open(), find_run(place.open(), "previous"), "by mistake")
    promote_run(place.open(), best.record, "it was fair")

    run = scored(place, 610)

    assert is_refused(run)
    assert f"of the best promoted run {best.record.run}:" in str(run.record.verdict)
