"""What a comparison of several runs comes to: each one held against the first, in numbers."""

from collections.abc import Sequence
from typing import Literal

from tasks.core.data.identity import Identity
from tasks.core.evaluation.intervals import Estimate
from tasks.core.evaluation.metrics import INTERVALS, paired_changes
from tasks.core.evaluation.paired import Comparison, compare
from tasks.core.frozen_model import FrozenModel
from tasks.core.reports.compare.provenance_diff import Differences, differences
from tasks.core.reports.compare.runs import ComparedRun

Verdict = Literal["better", "worse", "undecided", "same answers"]
CHANGES = (
    "95%; of differences in accuracy: Newcombe, paired; of the other changes: the difference in each replicate of the "
    "same Poisson bootstrap, reflected about the value; each interval holds on its own"
)


class RunFacts(FrozenModel):
    """One of the runs, and what it scores."""

    letter: str
    run: str
    weights: str
    predictions: str
    scores: dict[str, Estimate]


class Change(FrozenModel):
    """A run against the first one: a positive difference means that the first one's accuracy is lower."""

    letter: str
    verdict: Verdict
    comparison: Comparison
    scores: dict[str, Estimate]


class Summary(FrozenModel):
    """What `comparison.json` holds; every run but the first has its place in `changes`."""

    dataset: Identity
    generated_images: bool
    images: int
    runs: tuple[RunFacts, ...]
    changes: tuple[Change, ...]
    differences: Differences
    intervals: str = INTERVALS
    change_intervals: str = CHANGES


def summarize(runs: Sequence[ComparedRun]) -> Summary:
    first, *others = runs
    return Summary(
        dataset=first.identity,
        generated_images=first.identity.generated,
        images=len(first.predictions),
        runs=tuple(_facts(run) for run in runs),
        changes=tuple(_change(first, other) for other in others),
        differences=differences(runs),
    )


def comparison_verdict(comparison: Comparison) -> Verdict:
    """Better or worse only where the whole 95% interval of the paired difference says so."""
    if not comparison.fixed and not comparison.broken and not comparison.changed_mistakes:
        return "same answers"
    if comparison.difference.low > 0:
        return "better"
    return "worse" if comparison.difference.high < 0 else "undecided"


def _facts(run: ComparedRun) -> RunFacts:
    return RunFacts(
        letter=run.letter,
        run=run.run,
        weights=str(run.weights.ref),
        predictions=str(run.evaluated.ref),
        scores=dict(run.scores),
    )


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
