"""The promotion gate's decision: dataset ranks, rolled back results, and the tolerance."""

from itertools import product
from typing import get_args

import pytest
from tiny_artifacts import baseline_of, identity_of

from tasks.core.config import Promote
from tasks.core.data.identity import RANKS, Kind
from tasks.core.promotion_gate import RESULT_ARTIFACTS, GateInputs, decide
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.current import Current

POLICIES: tuple[Promote, ...] = get_args(Promote)
IMAGES = 1000  # as of the baseline
BEST = 700


def refs(word: str, images: str, version: str = "0123456789ab") -> dict[str, ArtifactRef]:
    """The artifacts that the gate compares: digests by a word, and the dataset's digest by its images."""
    digests = {name: f"{name} of {word}" for name in RESULT_ARTIFACTS} | {"dataset": images}
    return {name: ArtifactRef(name=name, version=version, sha256=sha256) for name, sha256 in digests.items()}


def promoted(kind: Kind, images: str = "these images", word: str = "before", version: str = "ba9876543210") -> Current:
    return Current(
        run="20260101-000000-abcdef",
        at="2026-01-01T00:00:00.000+00:00",
        who="me@here",
        why="it was good",
        identity=identity_of(kind, images),
        artifacts=refs(word, images, version),
    )


def action_on(policy: Promote, kind: Kind, images: str, inputs: GateInputs, tolerance: float = 1.0) -> str:
    return decide(policy, tolerance, refs("now", images), identity_of(kind, images), inputs).action


# Which dataset ranks above which


@pytest.mark.parametrize("kind", RANKS)
def test_the_first_run_is_promoted_unless_never_is_asked_for(kind: Kind) -> None:
    verdicts = {policy: action_on(policy, kind, "these images", GateInputs()) for policy in POLICIES}

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
def test_a_run_replaces_a_lower_rank_or_the_same_dataset(kind: Kind, before: Kind, images: str, verdict: str) -> None:
    assert action_on("auto", kind, images, GateInputs(promoted(before))) == verdict


@pytest.mark.parametrize(("kind", "before", "images"), list(product(RANKS, RANKS, ["these images", "other images"])))
def test_always_and_never_overrule_everything(kind: Kind, before: Kind, images: str) -> None:
    inputs = GateInputs(promoted(before), baseline_of(BEST // 2), "lost")

    assert action_on("always", kind, images, inputs) == "promote"
    assert action_on("never", kind, images, GateInputs(promoted(before), baseline_of(IMAGES))) == "refuse"


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_results_in_other_versions_keep_the_current_run(policy: Promote) -> None:
    before = promoted("archive", word="the same", version="ba9876543210")
    same = refs("the same", "these images", version="0123456789ab")
    inputs = GateInputs(before, baseline_of(BEST // 2), "lost")

    verdict = decide(policy, 1.0, same, identity_of("archive"), inputs)

    assert (verdict.action, verdict.is_promoted) == ("keep", True)
    assert verdict.reason == before.why


def test_other_generated_images_are_not_called_the_same_dataset() -> None:
    inputs = GateInputs(promoted("generated", "these images"))

    for images, words in (
        ("other images", "both are on generated images"),
        ("these images", "the latest run on the same"),
    ):
        verdict = decide("auto", 1.0, refs("now", images), identity_of("generated", images), inputs)
        assert words in verdict.reason
        assert ("same dataset" in verdict.reason) == (images == "these images")


@pytest.mark.parametrize("name", RESULT_ARTIFACTS)
def test_one_different_result_is_enough_for_a_decision(name: str) -> None:
    candidate = dict(refs("the same", "these images"))
    candidate[name] = candidate[name].model_copy(update={"sha256": "other"})
    inputs = GateInputs(promoted("archive", word="the same"))

    assert decide("auto", 1.0, candidate, identity_of("official"), inputs).action == "promote"


@pytest.mark.parametrize(
    ("policy", "kind", "images", "inputs", "words"),
    [
        ("auto", "generated", "other images", {}, ["generated images", "archive images", "--promote always"]),
        ("auto", "archive", "other images", {}, ["20260101-000000-abcdef", "--promote always"]),
        ("never", "archive", "these images", {}, ["--promote never"]),
        (
            "auto",
            "archive",
            "these images",
            {"rolled_back_run": "run nine, unfair"},
            ["run nine, unfair", "--promote always"],
        ),
        (
            "auto",
            "archive",
            "these images",
            {"baseline": baseline_of(660)},
            [
                "66.00% against 70.00% of the best promoted run 20260101-111111-fedcba",
                "-4.00 points, 95% interval -5.24 to -2.77",
                "wholly below -1",
                "--promote always",
            ],
        ),
    ],
)
def test_a_refusal_says_why_and_what_overrules_it(
    policy: Promote, kind: Kind, images: str, inputs: dict[str, object], words: list[str]
) -> None:
    found = GateInputs(promoted("archive"), **inputs)  # type: ignore[arg-type]

    verdict = decide(policy, 1.0, refs("now", images), identity_of(kind, images), found)

    assert not verdict.is_promoted
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
def test_a_run_is_refused_if_its_interval_is_below_the_tolerance(count: int, tolerance: float, verdict: str) -> None:
    inputs = GateInputs(promoted("archive"), baseline_of(count))

    assert action_on("auto", "archive", "these images", inputs, tolerance) == verdict


def test_no_run_is_a_hundred_points_worse() -> None:
    inputs = GateInputs(promoted("archive"), baseline_of(0, best=IMAGES))

    assert action_on("auto", "archive", "these images", inputs, tolerance=100) == "promote"


def test_a_rolled_back_result_is_refused_even_if_it_is_better() -> None:
    inputs = GateInputs(promoted("archive"), baseline_of(IMAGES), rolled_back_run="run nine")

    assert action_on("auto", "archive", "these images", inputs) == "refuse"


def test_a_rolled_back_result_is_refused_even_on_a_higher_rank() -> None:
    inputs = GateInputs(promoted("generated"), rolled_back_run="run nine")

    assert action_on("auto", "official", "other images", inputs) == "refuse"
