"""The promotion gate: whether a finished run becomes the current run.

A run on a better dataset replaces one on a lesser dataset, never the reverse. On the same dataset a run is promoted
unless it is significantly worse than the best promoted run; many small losses can therefore not add up.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd

from tasks.core.config import Promote
from tasks.core.data.identity import Identity, read_identity
from tasks.core.errors import CifarFlowError
from tasks.core.evaluation.paired import Comparison, IncomparableRuns, compare
from tasks.core.frozen_model import FrozenModel
from tasks.core.runtime.logs import logger
from tasks.core.runtime.parquet import read_table
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.current import Current, make_current, promotion_lock, read_current
from tasks.core.store.promotion_log import LogEntry, append_entry, read_log, rollback_reasons, standing_runs
from tasks.core.store.reader import DamagedArtifact
from tasks.core.store.runs import Promotion, Run, RunRecord, Score, read_record
from tasks.core.store.store import Store, now

RESULT_ARTIFACTS = ("dataset", "weights", "predictions", "per_class")
SENTENCES: dict[Promotion, str] = {
    "promote": "promoted",
    "keep": "same results as the current run, which stays",
    "refuse": "not promoted",
}


class Verdict(FrozenModel):
    """The decision on a run with its reason; `keep` if the current run has the same results."""

    action: Promotion
    reason: str

    @property
    def is_promoted(self) -> bool:
        return self.action != "refuse"

    def __str__(self) -> str:
        return f"{SENTENCES[self.action]}: {self.reason}"


@dataclass(frozen=True)
class Baseline:
    """The run that a candidate is compared with, and the paired comparison of their predictions."""

    run: str
    comparison: Comparison

    def is_candidate_worse(self, tolerance: float) -> bool:
        """Whether the whole 95% interval of the candidate's difference is below minus `tolerance` points."""
        return 100 * self.comparison.difference.high < -tolerance

    def __str__(self) -> str:
        points = self.comparison.difference
        return (
            f"{self.comparison.second_accuracy:.2%} against {self.comparison.first_accuracy:.2%} "
            f"of the best promoted run {self.run}: {100 * points.value:+.2f} points, 95% interval "
            f"{100 * points.low:+.2f} to {100 * points.high:+.2f}, McNemar p {self.comparison.mcnemar_p:.2g}"
        )


@dataclass(frozen=True)
class GateInputs:
    """Everything in a store that a verdict depends on."""

    current: Current | None = None
    baseline: Baseline | None = None
    baseline_error: str | None = None  # why there is no baseline although there are runs to compare with
    rolled_back_run: str | None = None  # a rolled back run with the candidate's results


def decide(
    policy: Promote, tolerance: float, candidate: Mapping[str, ArtifactRef], identity: Identity, inputs: GateInputs
) -> Verdict:
    """Decide on a run by its dataset first, and on the same dataset by its predictions."""
    current = inputs.current
    if current and _have_same_results(candidate, current.artifacts):
        return Verdict(action="keep", reason=current.why)
    if policy == "never":
        return Verdict(action="refuse", reason="--promote never was asked for")
    if current is None:
        return Verdict(action="promote", reason="it is the first finished run in this store")
    replaced = f"in place of run {current.run}"
    if policy == "always":
        return Verdict(action="promote", reason=f"--promote always was asked for, {replaced}")
    refusal = _refusal_reason(tolerance, identity, current, inputs)
    if refusal:
        return Verdict(action="refuse", reason=f"{refusal}; `cifar promote` or --promote always overrules that")
    return Verdict(action="promote", reason=f"{_promotion_reason(identity, current, inputs)}, {replaced}")


def _refusal_reason(tolerance: float, identity: Identity, current: Current, inputs: GateInputs) -> str | None:
    if inputs.rolled_back_run:
        return f"its results are those of run {inputs.rolled_back_run}"
    if identity.rank < current.identity.rank:
        return f"{identity.name} ranks below {current.identity.name} of run {current.run}"
    if identity.rank > current.identity.rank:
        return None
    if not identity.has_same_images(current.identity):
        return f"its images are not those of the current run {current.run}"
    if inputs.baseline_error:
        return inputs.baseline_error
    if inputs.baseline and inputs.baseline.is_candidate_worse(tolerance):
        return f"{inputs.baseline}, wholly below -{tolerance:g}"
    return None


def _promotion_reason(identity: Identity, current: Current, inputs: GateInputs) -> str:
    if identity.rank > current.identity.rank:
        return f"{identity.name} ranks above {current.identity.name}"
    is_same_dataset = identity.sha256 == current.identity.sha256
    default = "it is the latest run on the same dataset" if is_same_dataset else "both are on generated images"
    return str(inputs.baseline or default)


def read_gate_inputs(
    store: Store, candidate: Mapping[str, ArtifactRef], identity: Identity, predictions: pd.DataFrame
) -> GateInputs:
    """Read everything that a verdict on a candidate depends on."""
    log = read_log(store)
    baseline, baseline_error = _find_baseline(store, standing_runs(log), identity, predictions)
    return GateInputs(read_current(store), baseline, baseline_error, _find_rolled_back(store, log, candidate))


def _find_rolled_back(store: Store, log: Sequence[LogEntry], candidate: Mapping[str, ArtifactRef]) -> str | None:
    """A rolled back run with the candidate's results, and why it was rolled back."""
    for run, reason in rollback_reasons(log).items():
        record = read_record(store, run)
        if record and _have_same_results(candidate, record.artifacts):
            return f"{run}, which was rolled back ({reason})"
    return None


def _find_baseline(
    store: Store, promoted: Sequence[str], identity: Identity, predictions: pd.DataFrame
) -> tuple[Baseline | None, str | None]:
    """The most accurate promoted run on the same images, the latest of several; or why none can be compared with."""
    scored = [
        (record.score.accuracy, record)
        for run in reversed(promoted)
        if (record := read_record(store, run)) and record.score
        if record.dataset and record.dataset.sha256 == identity.sha256
    ]
    errors: list[str] = []
    for _, record in sorted(scored, key=lambda each: each[0], reverse=True):
        try:
            theirs = read_table(store.open(record.artifacts["predictions"]) / "predictions.parquet")
            return Baseline(record.run, compare(theirs, predictions)), None
        except (DamagedArtifact, IncomparableRuns) as error:
            errors.append(f"run {record.run} cannot be compared with: {error.problem}")
            logger.info(f"promotion gate: {errors[-1]}")
    return None, errors[0] if errors else None


def _have_same_results(candidate: Mapping[str, ArtifactRef], other: Mapping[str, ArtifactRef]) -> bool:
    return all(name in other and candidate[name].sha256 == other[name].sha256 for name in RESULT_ARTIFACTS)


@contextmanager
def promotion_gate(run: Run, policy: Promote, tolerance: float) -> Iterator[Verdict]:
    """Yield the verdict on a run, which its report shows; apply the verdict when the block ends.

    The promotion lock is held all the time, so that no other run is promoted between the two.
    """
    store, record = run.store, run.record
    with promotion_lock(store):
        identity = read_identity(store.open(record.artifacts["dataset"]))
        predictions = read_table(store.open(record.artifacts["predictions"]) / "predictions.parquet")
        record.dataset = identity
        record.score = Score(correct=int(predictions["correct"].sum()), images=len(predictions))
        inputs = read_gate_inputs(store, record.artifacts, identity, predictions)
        verdict = decide(policy, tolerance, record.artifacts, identity, inputs)
        yield verdict
        record.promotion, record.verdict = verdict.action, str(verdict)
        run.save()
        try:
            _apply(verdict, store, record, inputs.current)
        except CifarFlowError:
            record.promotion = record.verdict = None  # the verdict was not applied
            raise
        run.end("completed")
        logger.info(f"run {record.run} on {identity.name}: {verdict}")


def _apply(verdict: Verdict, store: Store, record: RunRecord, before: Current | None) -> None:
    if verdict.action == "keep":
        assert before is not None
        # The current run stays, with the newest versions of the same results, and a report that shows its own reason.
        current = before.model_copy(update={"artifacts": record.artifacts})
    else:
        entry = LogEntry(action=verdict.action, run=record.run, at=now(), who=record.who, why=verdict.reason)
        if verdict.action == "refuse":
            append_entry(store, entry)
            return
        assert record.dataset is not None
        current = Current(**entry.model_dump(), identity=record.dataset, artifacts=record.artifacts)
    make_current(store, current, before, advice="run again, so that the gate compares with that one")
