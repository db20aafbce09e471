"""The gate: which finished run may take the current one's place, and what it is held against."""

import io
from itertools import pairwise, product
from typing import get_args

import pandas as pd
import pyarrow.parquet as pq
import pytest
from places import BUCKET_BY_SOAK, Place, flip_a_bit, overwrite
from tiny_artifacts import finished_run, identity_of, make_artifact, predictions_bytes, quiet, results

from tasks.core.config import Promote
from tasks.core.data.identity import RANKS, Kind
from tasks.core.evaluation.paired import compare
from tasks.core.promotion_gate import RESULT_ARTIFACTS, Baseline, GateInputs, decide, promotion_gate
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.current import Current, promote_run, read_current, roll_back
from tasks.core.store.history import find_run
from tasks.core.store.promotion_log import read_log
from tasks.core.store.runs import Run, Score, read_record, recording_run

POLICIES: tuple[Promote, ...] = get_args(Promote)
IMAGES = 1000
BEST = 700


def right(count: int, images: int = IMAGES) -> list[bool]:
    """The first `count` images right: who gets fewer right makes the other's mistakes and more."""
    return [index < count for index in range(images)]


def baseline(count: int, best: int = BEST) -> Baseline:
    """A best run, and a candidate that gets `count` of the same images right."""
    tables: list[pd.DataFrame] = [
        pq.read_table(io.BytesIO(predictions_bytes(right(each)))).to_pandas() for each in (best, count)
    ]
    return Baseline("20260101-111111-fedcba", compare(*tables))


def refs(word: str, images: str, version: str = "0123456789ab") -> dict[str, ArtifactRef]:
    """What a run is judged by: contents named by a word, and the dataset's by its images."""
    said = {name: f"{name} of {word}" for name in RESULT_ARTIFACTS} | {"dataset": images}
    return {name: ArtifactRef(name=name, version=version, sha256=sha256) for name, sha256 in said.items()}


def promoted(kind: Kind, images: str = "these images", word: str = "before", version: str = "ba9876543210") -> Current:
    return Current(
        run="20260101-000000-abcdef",
        at="2026-01-01T00:00:00.000+00:00",
        who="me@here",
        why="it was good",
        identity=identity_of(kind, images),
        artifacts=refs(word, images, version),
    )


def comparison_verdict(policy: Promote, kind: Kind, images: str, situation: GateInputs, tolerance: float = 1.0) -> str:
    return decide(policy, tolerance, refs("now", images), identity_of(kind, images), situation).action


# Which dataset ranks above which


@pytest.mark.parametrize("kind", RANKS)
def test_the_first_run_is_promoted_unless_that_is_forbidden(kind: Kind) -> None:
    verdicts = {policy: comparison_verdict(policy, kind, "these images", GateInputs()) for policy in POLICIES}

    assert verdicts == {"auto": "promote", "always": "promote", "never": "refuse"}


@pytest.mark.parametrize(
    ("kind", "before", "images", "verdict"),
    [
        ("official", "official", "these images", "promote"),
        ("archive", "archive", "these images", "promote"),
        ("generated", "generated", "these images", "promote"),
        ("official", "archive", "other images", "promote"),
        ("official", "generated", "other images", "promote"),
        ("archive", "generated", "other images", "promote"),
        ("generated", "archive", "other images", "refuse"),
        ("generated", "official", "other images", "refuse"),
        ("archive", "official", "other images", "refuse"),
        ("official", "official", "other images", "refuse"),
        ("archive", "archive", "other images", "refuse"),
        ("generated", "generated", "other images", "promote"),  # whose archive another zlib compressed
    ],
)
def test_of_itself_a_run_replaces_a_lower_rank_or_one_on_the_same_dataset(
    kind: Kind, before: Kind, images: str, verdict: str
) -> None:
    assert comparison_verdict("auto", kind, images, GateInputs(promoted(before))) == verdict


@pytest.mark.parametrize(("kind", "before", "images"), list(product(RANKS, RANKS, ["these images", "other images"])))
def test_always_and_never_mean_what_they_say(kind: Kind, before: Kind, images: str) -> None:
    situation = GateInputs(promoted(before), baseline(BEST // 2), "given up")

    assert comparison_verdict("always", kind, images, situation) == "promote"
    assert comparison_verdict("never", kind, images, GateInputs(promoted(before), baseline(IMAGES))) == "refuse"


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_results_in_other_versions_keep_the_promoted_run(policy: Promote) -> None:
    before = promoted("archive", word="the same", version="ba9876543210")
    same = refs("the same", "these images", version="0123456789ab")
    situation = GateInputs(before, baseline(BEST // 2), "given up")

    verdict = decide(policy, 1.0, same, identity_of("archive"), situation)

    assert (verdict.action, verdict.promoted) == ("keep", True)
    assert verdict.reason == before.why


def test_generated_images_of_another_size_are_not_called_the_same_dataset() -> None:
    situation = GateInputs(promoted("generated", "these images"))

    for images, words in (("other images", "generated images, too"), ("these images", "the latest run on the same")):
        verdict = decide("auto", 1.0, refs("now", images), identity_of("generated", images), situation)
        assert words in verdict.reason
        assert ("same dataset" in verdict.reason) == (images == "these images")


@pytest.mark.parametrize("name", RESULT_ARTIFACTS)
def test_a_single_other_result_is_enough_to_be_judged(name: str) -> None:
    candidate = dict(refs("the same", "these images"))
    candidate[name] = candidate[name].model_copy(update={"sha256": "other"})
    situation = GateInputs(promoted("archive", word="the same"))

    assert decide("auto", 1.0, candidate, identity_of("official"), situation).action == "promote"


@pytest.mark.parametrize(
    ("policy", "kind", "images", "situation", "words"),
    [
        ("auto", "generated", "other images", {}, ["generated images", "archive images", "--promote always"]),
        ("auto", "archive", "other images", {}, ["20260101-000000-abcdef", "--promote always"]),
        ("never", "archive", "these images", {}, ["--promote never"]),
        ("auto", "archive", "these images", {"given_up": "run nine, unfair"}, ["run nine, unfair", "--promote always"]),
        (
            "auto",
            "archive",
            "these images",
            {"rival": baseline(660)},
            [
                "66.00% against 70.00% of run 20260101-111111-fedcba, the best",
                "-4.00 points, 95% interval -5.24 to -2.77",
                "wholly below -1",
                "--promote always",
            ],
        ),
    ],
)
def test_a_refusal_says_why_and_what_overrules_it(
    policy: Promote, kind: Kind, images: str, situation: dict[str, object], words: list[str]
) -> None:
    found = GateInputs(promoted("archive"), **situation)  # type: ignore[arg-type]

    verdict = decide(policy, 1.0, refs("now", images), identity_of(kind, images), found)

    assert not verdict.promoted
    assert str(verdict).startswith("not promoted: ")
    assert [word for word in words if word not in str(verdict)] == []


# Within one dataset: worse than the best by how much


@pytest.mark.parametrize(
    ("count", "tolerance", "verdict"),
    [
        (697, 0, "promote"),  # -0.72 to +0.12 points
        (694, 0, "refuse"),  # -1.14 to -0.07
        (694, 0.06, "refuse"),
        (694, 0.07, "promote"),
        (682, 1, "promote"),  # -2.66 to -0.95
        (681, 1, "refuse"),  # -2.79 to -1.03
        (670, 1.92, "refuse"),  # -4.09 to -1.92
        (670, 1.93, "promote"),
        (0, 60, "refuse"),
        (0, 100, "promote"),
        (BEST, 0, "promote"),
        (IMAGES, 0, "promote"),
    ],
)
def test_a_run_is_refused_when_its_whole_interval_lies_below_the_tolerance(
    count: int, tolerance: float, verdict: str
) -> None:
    situation = GateInputs(promoted("archive"), baseline(count))

    assert comparison_verdict("auto", "archive", "these images", situation, tolerance) == verdict


def test_not_even_a_run_without_any_right_answer_is_a_hundred_points_worse() -> None:
    situation = GateInputs(promoted("archive"), baseline(0, best=IMAGES))

    assert comparison_verdict("auto", "archive", "these images", situation, tolerance=100) == "promote"


def test_a_run_that_was_given_up_is_refused_however_good_it_is() -> None:
    situation = GateInputs(promoted("archive"), baseline(IMAGES), rolled_back_run="run nine")

    assert comparison_verdict("auto", "archive", "these images", situation) == "refuse"


def test_a_higher_rank_does_not_bring_back_what_was_given_up() -> None:
    situation = GateInputs(promoted("generated"), rolled_back_run="run nine")

    assert comparison_verdict("auto", "official", "other images", situation) == "refuse"


# With real runs


def scored(place: Place, count: int, word: str = "", policy: Promote = "auto", tolerance: float = 1.0) -> Run:
    """A run that gets `count` images right."""
    word = word or f"{count} right"
    return finished_run(place.location, word, policy=policy, correct=right(count), tolerance=tolerance)


def reporting_run(place: Place, count: int, policy: Promote = "auto") -> Run:
    """A run that gets `count` images right, and whose report shows the reason of the verdict."""
    payloads = results(f"{count} right", identity_of(), right(count))
    with recording_run(place.open(), {}, {}, quiet) as run:
        run.keep(*(make_artifact(run.store, name, payloads[name]) for name in RESULT_ARTIFACTS))
        with promotion_gate(run, policy, 1.0, quiet) as verdict:
            page = f"report, as {verdict.reason}".encode()
            run.keep(make_artifact(run.store, "report", {"report.html": page, "metrics.json": b"{}"}))
    return run


def is_refused(run: Run) -> bool:
    return str(run.record.verdict).startswith("not promoted: ")


def current(place: Place) -> str:
    found = read_current(place.open())
    assert found is not None
    return found.run


@BUCKET_BY_SOAK
def test_many_small_losses_cannot_add_up(place: Place) -> None:
    counts = [700, 692, 684, 676, 668]

    refused = [is_refused(scored(place, count)) for count in counts]

    steps = [baseline(after, before) for before, after in pairwise(counts)]
    assert not any(
        step.is_significantly_better(tolerance=1.0) for step in steps
    )  # held against the latest, all are let through
    assert refused == [False, False, False, True, True]
    assert [entry.action for entry in read_log(place.open())] == ["promote"] * 3 + ["refuse"] * 2


@BUCKET_BY_SOAK
def test_a_run_is_held_against_the_best_run_and_not_the_latest(place: Place) -> None:
    best = scored(place, 700)
    scored(place, 640, policy="always")

    run = scored(place, 660)

    assert is_refused(run)
    assert f"of run {best.record.run}, the best" in str(run.record.verdict)


@BUCKET_BY_SOAK
@pytest.mark.parametrize(("count", "tolerance", "refused"), [(694, 0, True), (0, 100, False)])
def test_the_tolerance_is_the_users(place: Place, count: int, tolerance: float, refused: bool) -> None:
    scored(place, 700)

    assert is_refused(scored(place, count, tolerance=tolerance)) == refused


def test_a_runs_score_and_dataset_are_on_record(place: Place) -> None:
    run = scored(place, 650)

    record = read_record(place.open(), run.record.run)

    assert record is not None
    assert record.score == Score(correct=650, images=IMAGES)
    assert record.dataset == identity_of()


@BUCKET_BY_SOAK
def test_a_refused_run_is_no_measure(place: Place) -> None:
    scored(place, 600)
    scored(place, 900, policy="never")

    assert not is_refused(scored(place, 601))


@BUCKET_BY_SOAK
def test_a_run_on_other_images_is_no_measure(place: Place) -> None:
    scored(place, 900)
    finished_run(place.location, "other", identity_of(images="other"), "always", correct=right(500))

    run = finished_run(place.location, "again", identity_of(images="other"), correct=right(495))

    assert not is_refused(run)


@BUCKET_BY_SOAK
def test_where_the_best_run_is_damaged_the_next_best_is_the_measure(place: Place) -> None:
    best, second = scored(place, 700), scored(place, 690)
    flip_a_bit(place, place.name_of(best.record.artifacts["predictions"], "predictions.parquet"))
    log: list[str] = []

    run = finished_run(place.location, "word", log=log.append, correct=right(660))

    assert f"of run {second.record.run}, the best" in str(run.record.verdict)
    assert log[0].startswith(f"run {best.record.run} cannot be compared with: predictions/")


@BUCKET_BY_SOAK
def test_where_no_run_can_be_compared_with_any_more_the_current_one_stays(place: Place) -> None:
    best = scored(place, 700)
    place.lose(best.record.artifacts["predictions"])

    run = scored(place, 500)

    assert is_refused(run)
    assert f"run {best.record.run} cannot be compared with: predictions/" in str(run.record.verdict)
    assert not is_refused(scored(place, 500, policy="always"))


@BUCKET_BY_SOAK
def test_a_rolled_back_run_is_no_measure_and_its_results_are_refused(place: Place) -> None:
    scored(place, 600)
    unfair = scored(place, 900, "unfair")
    roll_back(place.open(), find_run(place.open(), "previous"), "it saw the test images", quiet)

    fair, unfair_again = scored(place, 610), scored(place, 900, "unfair")

    assert not is_refused(fair)
    assert is_refused(unfair_again)
    why = f"its results are those of run {unfair.record.run}, which was rolled back (it saw the test images)"
    assert why in str(unfair_again.record.verdict)
    assert current(place) == fair.record.run


@BUCKET_BY_SOAK
@pytest.mark.parametrize("policy", ["auto", "never"])
def test_the_current_run_stays_when_it_is_run_again_after_a_rollback(place: Place, policy: Promote) -> None:
    """The reason is another one by then, and so is the report, which shows it."""
    one = reporting_run(place, 600)
    reporting_run(place, 610)
    roll_back(place.open(), find_run(place.open(), "previous"), "unfair", quiet)

    again, once_more = (reporting_run(place, 600, policy) for _ in range(2))

    assert again.record.verdict == "the same as the promoted one, which stays: unfair"
    found = read_current(place.open())
    assert found is not None
    assert (found.run, found.action, found.why) == (one.record.run, "rollback", "unfair")
    assert [entry.action for entry in read_log(place.open())] == ["promote", "promote", "rollback"]
    assert found.artifacts == again.record.artifacts == once_more.record.artifacts
    assert place.read("report.html") == b"report, as unfair"


@BUCKET_BY_SOAK
def test_the_current_run_stays_when_one_of_its_versions_is_made_anew(place: Place) -> None:
    one = scored(place, 600)
    place.lose(one.record.artifacts["report"])
    overwrite(place, f"{one.record.artifacts['weights']}/manifest.json")

    again = scored(place, 600)

    assert current(place) == one.record.run
    assert again.record.artifacts == one.record.artifacts  # which can be read again
    assert place.open().open(one.record.artifacts["weights"])
    assert [entry.action for entry in read_log(place.open())] == ["promote"]


@BUCKET_BY_SOAK
def test_a_rolled_back_run_that_is_promoted_again_is_the_measure_again(place: Place) -> None:
    scored(place, 600)
    best = scored(place, 900)
    roll_back(place.open(), find_run(place.open(), "previous"), "by mistake", quiet)
    promote_run(place.open(), best.record, "it was fair", quiet)

    run = scored(place, 610)

    assert is_refused(run)
    assert f"of run {best.record.run}, the best" in str(run.record.verdict)
