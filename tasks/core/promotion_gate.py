"""The gate: whether a finished run becomes the current one.

A better dataset replaces a lesser one, never the other way round. Within one dataset a run is let through unless it is
really worse than the best run in good standing, so that many small losses cannot add up.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from tasks.core.config import Promote
from tasks.core.data.identity import Identity, read_identity
from tasks.core.errors import CifarFlowError
from tasks.core.evaluation.paired import Comparison, IncomparableRuns, compare
from tasks.core.frozen_model import FrozenModel
from tasks.core.runtime.parquet import read_table
from tasks.core.store.artifact import ArtifactRef, Log
from tasks.core.store.current import Current, make_current, promotion_lock, read_current
from tasks.core.store.promotion_log import LogEntry, append_entry, read_log, rollback_reasons, standing_runs
from tasks.core.store.runs import Run, RunRecord, Score, read_record
from tasks.core.store.store import DamagedArtifact, Store, now

RESULT_ARTIFACTS = ("dataset", "weights", "predictions", "per_class")


class Verdict(FrozenModel):
    """Whether a run becomes the current one, and why; `keep` means that its results are the current ones already."""

    action: Literal["promote", "keep", "refuse"]
    reason: str

    @property
    def promoted(self) -> bool:
        return self.action != "refuse"

    def __str__(self) -> str:
        words = {"promote": "promoted", "keep": "the same as the promoted one, which stays", "refuse": "not promoted"}
        return f"{words[self.action]}: {self.reason}"


@dataclass(frozen=True)
class Baseline:
    """The run that a candidate is held against, and how the candidate's predictions compare with its own."""

    run: str
    comparison: Comparison

    def is_significantly_better(self, tolerance: float) -> bool:
        """Whether the 95% interval of the candidate's difference lies wholly below minus `tolerance` points."""
        return 100 * self.comparison.difference.high < -tolerance

    def __str__(self) -> str:
        found, difference = self.comparison, self.comparison.difference
        return (
            f"{100 * found.second_accuracy:.2f}% against {100 * found.first_accuracy:.2f}% of run {self.run}, the best "
            f"in good standing: {100 * difference.value:+.2f} points, 95% interval {100 * difference.low:+.2f} to "
            f"{100 * difference.high:+.2f}, McNemar p {found.mcnemar_p:.2g}"
        )


@dataclass(frozen=True)
class GateInputs:
    """What a store holds that a verdict depends on.

    `lost` tells why there is no rival though there are runs to be held against; `given_up` is a rolled back run with
    the candidate's results.
    """

    current: Current | None = None
    baseline: Baseline | None = None
    lost: str | None = None
    rolled_back_run: str | None = None


def decide(
    policy: Promote, tolerance: float, candidate: Mapping[str, ArtifactRef], identity: Identity, situation: GateInputs
) -> Verdict:
    """Judge a run by its dataset first, and within one dataset by its predictions."""
    current = situation.current
    if current and _same(RESULT_ARTIFACTS, candidate, current.artifacts):
        return Verdict(action="keep", reason=current.why)
    if policy == "never":
        return Verdict(action="refuse", reason="--promote never was asked for")
    if current is None:
        return Verdict(action="promote", reason="it is the first finished run in this store")
    place = f"in place of run {current.run}"
    if policy == "always":
        return Verdict(action="promote", reason=f"--promote always was asked for, {place}")
    objection = _refusal_reason(tolerance, identity, current, situation)
    if objection:
        return Verdict(action="refuse", reason=f"{objection}; `cifar promote` or --promote always overrules that")
    return Verdict(action="promote", reason=f"{_promotion_reason(identity, current, situation)}, {place}")


def _refusal_reason(tolerance: float, identity: Identity, current: Current, situation: GateInputs) -> str | None:
    """What speaks against a candidate; a higher rank makes up for all but what was given up."""
    if situation.rolled_back_run:
        return f"its results are those of run {situation.rolled_back_run}"
    if identity.rank < current.identity.rank:
        return f"{identity.name} ranks below {current.identity.name} of run {current.run}"
    if identity.rank > current.identity.rank:
        return None
    if not identity.same_images(current.identity):
        return f"its images are not those of the current run {current.run}"
    if situation.lost:
        return situation.lost
    if situation.baseline and situation.baseline.is_significantly_better(tolerance):
        return f"{situation.baseline}, wholly below -{tolerance:g}"
    return None


def _promotion_reason(identity: Identity, current: Current, situation: GateInputs) -> str:
    if identity.rank > current.identity.rank:
        return f"{identity.name} ranks above {current.identity.name}"
    same = identity.sha256 == current.identity.sha256
    return str(situation.baseline or ("it is the latest run on the same dataset" if same else "generated images, too"))


def read_gate_inputs(
    store: Store, candidate: Mapping[str, ArtifactRef], identity: Identity, predictions: pd.DataFrame, log: Log
) -> GateInputs:
    """Look up what a verdict on a candidate depends on."""
    promotions = read_log(store)
    standing = _records(store, reversed(standing_runs(promotions)))
    baseline, lost = _find_baseline(standing, store, identity, predictions, log)
    return GateInputs(
        current=read_current(store),
        baseline=baseline,
        lost=lost,
        rolled_back_run=next(
            (
                f"{record.run}, which was rolled back ({rollback_reasons(promotions)[record.run]})"
                for record in _records(store, rollback_reasons(promotions))
                if _same(RESULT_ARTIFACTS, candidate, record.artifacts)
            ),
            None,
        ),
    )


def _records(store: Store, runs: Iterable[str]) -> list[RunRecord]:
    return [record for run in runs if (record := read_record(store, run))]


def _find_baseline(
    standing: Iterable[RunRecord], store: Store, identity: Identity, predictions: pd.DataFrame, log: Log
) -> tuple[Baseline | None, str | None]:
    """The most accurate run on the same images, of equals the first one given; else why it cannot be compared with."""
    scored = [
        (record.score.accuracy, record)
        for record in standing
        if record.score and record.dataset and record.dataset.sha256 == identity.sha256
    ]
    lost: list[str] = []
    for _, record in sorted(scored, key=lambda each: each[0], reverse=True):
        try:
            theirs = read_table(store.open(record.artifacts["predictions"]) / "predictions.parquet")
            return Baseline(record.run, compare(theirs, predictions)), None
        except (DamagedArtifact, IncomparableRuns) as error:
            lost.append(f"run {record.run} cannot be compared with: {error}")
            log(lost[-1])
    return None, lost[0] if lost else None


def _same(names: Iterable[str], some: Mapping[str, ArtifactRef], others: Mapping[str, ArtifactRef]) -> bool:
    return all(name in others and some[name].sha256 == others[name].sha256 for name in names)


@contextmanager
def promotion_gate(run: Run, policy: Promote, tolerance: float, log: Log) -> Iterator[Verdict]:
    """The verdict on a run while its report is made, and then its promotion, if that is the verdict.

    One run at a time, so that no verdict is overtaken by another run's promotion.
    """
    store, record = run.store, run.record
    with promotion_lock(store, log):
        identity = read_identity(store.open(record.artifacts["dataset"]))
        predictions = read_table(store.open(record.artifacts["predictions"]) / "predictions.parquet")
        record.dataset = identity
        record.score = Score(correct=int(predictions["correct"].sum()), images=len(predictions))
        situation = read_gate_inputs(store, record.artifacts, identity, predictions, log)
        verdict = decide(policy, tolerance, record.artifacts, identity, situation)
        yield verdict
        record.verdict = str(verdict)
        run.save()
        try:
            _apply(verdict, store, record, situation.current)
        except CifarFlowError:
            record.verdict = None  # nothing came of it
            raise
        run.end("completed")
        log(f"run {record.run} on {identity.name} is {verdict}")


def _apply(verdict: Verdict, store: Store, record: RunRecord, before: Current | None) -> None:
    assert record.dataset is not None
    current = Current(
        run=record.run,
        at=now(),
        who=record.who,
        why=verdict.reason,
        identity=record.dataset,
        artifacts=record.artifacts,
    )
    if verdict.action == "refuse":
        append_entry(store, LogEntry(**{**current.entry.model_dump(), "action": "refuse"}))
        return
    if verdict.action == "keep":
        assert before is not None
        # The same run stays, with what may be newer versions of the same results, and a report of its own reason.
        current = before.model_copy(update={"artifacts": record.artifacts})
    make_current(store, current, before, if_overtaken="run again to be judged against that one")
