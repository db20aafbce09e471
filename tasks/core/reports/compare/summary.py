"""The numbers of a comparison: each run against the first one."""

from collections.abc import Sequence
from typing import Literal

from tasks.core.data.identity import Identity
from tasks.core.evaluation.bootstrap import INTERVALS
from tasks.core.evaluation.intervals import Estimate
from tasks.core.evaluation.metrics import paired_changes
from tasks.core.evaluation.paired import Comparison, PairedOutcome, compare
from tasks.core.frozen_model import FrozenModel
from tasks.core.reports.compare.provenance_diff import Differences, find_differences
from tasks.core.reports.compare.runs import ComparedRun

Verdict = Literal["better", "worse", "undecided", "same answers"]
CHANGE_INTERVALS = (
    "95%; of differences in accuracy: Newcombe, paired; of the other changes: the difference in each replicate of the "
    "same Poisson bootstrap, reflected about the value; each interval holds on its own"
)


class RunFacts(FrozenModel):
    """One of the runs, with its scores."""

    letter: str
    run: str
    weights: str
    predictions: str
    scores: dict[str, Estimate]


class Change(FrozenModel):
    """A run against the first run; a positive difference in accuracy means that this run is more accurate."""

    letter: str
    verdict: Verdict
    comparison: Comparison
    scores: dict[str, Estimate]


class Summary(FrozenModel):
    """The content of `comparison.json`; `changes` has an entry for every run but the first."""

    dataset: Identity
    generated_images: bool
    images: int
    runs: tuple[RunFacts, ...]
    changes: tuple[Change, ...]
    differences: Differences
    intervals: str = INTERVALS
    change_intervals: str = CHANGE_INTERVALS


def summarize(runs: Sequence[ComparedRun]) -> Summary:
    """Compare each run with the first one."""
    first, *others = runs
    return Summary(
        dataset=first.identity,
        generated_images=first.identity.is_generated,
        images=len(first.predictions),
        runs=tuple(
            RunFacts(
                letter=run.letter,
                run=run.run,
                weights=str(run.weights_manifest.ref),
                predictions=str(run.predictions_manifest.ref),
                scores=dict(run.scores),
            )
            for run in runs
        ),
        changes=tuple(_change(first, other) for other in others),
        differences=find_differences(runs),
    )


def comparison_verdict(comparison: PairedOutcome) -> Verdict:
    """Return better or worse only if the whole 95% interval of the paired difference is on one side of 0."""
    if not comparison.fixed and not comparison.broken and not comparison.changed_mistakes:
        return "same answers"
    if comparison.difference.low > 0:
        return "better"
    return "worse" if comparison.difference.high < 0 else "undecided"


def _change(first: ComparedRun, other: ComparedRun) -> Change:
    comparison = compare(first.predictions, other.predictions)
    difference = comparison.difference
    return Change(
        letter=other.letter,
        verdict=comparison_verdict(comparison),
        comparison=comparison,
        scores={
            "accuracy": Estimate(difference.value, difference.low, difference.high),
            **paired_changes(first.replicates, other.replicates),
        },
    )
