"""What a run would reuse, what it would build, and why, without running anything."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tasks.core.config import Settings
from tasks.core.data.dataset import load_dataset
from tasks.core.data.identity import read_identity
from tasks.core.pipeline import STAGES, Plan, Stage, Step
from tasks.core.pipeline_run import find_unneeded_raw, plan_run
from tasks.core.promotion_gate import Verdict, decide, read_gate_inputs
from tasks.core.runtime.parquet import read_table
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef
from tasks.core.training.data import check_held_out

NOT_BUILT = "not built yet"


def explain(store: Store, settings: Settings) -> Iterator[str]:
    """One line a stage: its cache hit, or why it would be built, compared with the nearest earlier version.

    Whether a rebuilt artifact comes out with the same bytes is unknown, and the stages that need it say so.
    """
    return _Explanation(replace(store, refresh=settings.refresh), plan_run(settings), settings).lines()


class _Explanation:
    def __init__(self, store: Store, plan: Plan, settings: Settings) -> None:
        self.store, self.plan, self.settings = store, plan, settings
        self.artifacts: dict[str, ArtifactRef] = {}
        self.uncertain: list[str] = []

    def lines(self) -> Iterator[str]:
        for stage in STAGES.values():
            if stage.artifact == "weights" and "dataset" not in self.uncertain:
                labels = load_dataset(self.store.open(self.artifacts["dataset"])).train_labels
                check_held_out(labels, self.settings.validation)
            yield self._line(stage)

    def _line(self, stage: Stage) -> str:
        step = Step(self.plan, self.store, self.artifacts)
        if stage.artifact == "raw" and (unneeded := find_unneeded_raw(step)):
            self.artifacts["raw"] = unneeded.ref
            return f"{stage.label}: {unneeded.message}"
        if stage.artifact == "report":
            if self.uncertain:
                return f"{stage.label}: its verdict depends on what is built before it"
            step = replace(step, verdict=self._verdict())
        build = stage.build(step)
        newest = self.store.newest(build.key)
        reason = self.store.rebuild_reason(build, newest, self.store.damage(newest) if newest else None)
        changing = [name for name in stage.needs if name in self.uncertain]
        self.artifacts[stage.artifact] = newest.ref if newest else _not_built(stage)
        if reason or changing:
            self.uncertain.append(stage.artifact)
        if newest and not reason:
            condition = f", unless {' and '.join(changing)} changes" if changing else ""
            return f"{stage.label}: cache hit {newest.ref}{condition}"
        return f"{stage.label}: {_with_rebuilt_inputs(reason or '', changing)}"

    def _verdict(self) -> Verdict:
        """The verdict that the run would end with."""
        identity = read_identity(self.store.open(self.artifacts["dataset"]))
        predictions = read_table(self.store.open(self.artifacts["predictions"]) / "predictions.parquet")
        inputs = read_gate_inputs(self.store, self.artifacts, identity, predictions)
        return decide(self.settings.promote, self.settings.tolerance, self.artifacts, identity, inputs)


def _not_built(stage: Stage) -> ArtifactRef:
    return ArtifactRef(name=stage.artifact, version=NOT_BUILT, sha256=NOT_BUILT)


def _with_rebuilt_inputs(reason: str, inputs: Sequence[str]) -> str:
    for name in inputs:
        reason = reason.replace(f"input {name} changed", f"input {name} will be rebuilt")
    return reason
