"""What a run would reuse, what it would build, and why, without running anything."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tasks.core.config import Settings
from tasks.core.data.dataset import load_dataset
from tasks.core.data.identity import read_identity
from tasks.core.pipeline import STAGES, Step
from tasks.core.pipeline_run import find_unneeded_raw, plan_run
from tasks.core.promotion_gate import Verdict, decide, read_gate_inputs
from tasks.core.runtime.parquet import read_table
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef, Manifest
from tasks.core.training.data import check_held_out

NOT_BUILT = "not built yet"


def explain(store: Store, settings: Settings) -> Iterator[str]:
    """One line a stage: its cache hit, or why it would be built, compared with the nearest earlier version.

    Whether a rebuilt artifact comes out with the same bytes is unknown, and the stages that need it say so.
    """
    store, plan = replace(store, refresh=settings.refresh), plan_run(settings)
    artifacts: dict[str, ArtifactRef] = {}
    uncertain: list[str] = []
    for stage in STAGES.values():
        step = Step(plan, store, artifacts)
        if stage.artifact == "raw" and (unneeded := find_unneeded_raw(step)):
            artifacts["raw"] = unneeded.ref
            yield f"{stage.label}: {unneeded.message}"
            continue
        if stage.artifact == "weights" and "dataset" not in uncertain:
            check_held_out(load_dataset(step.payload("dataset")).train_labels, settings.validation)
        if stage.artifact == "report":
            if uncertain:
                yield f"{stage.label}: its verdict depends on what is built before it"
                return
            step = replace(step, verdict=_final_verdict(step, settings))
        build = stage.build(step)
        newest = store.newest(build.key)
        reason = store.rebuild_reason(build, newest, store.damage(newest) if newest else None)
        changing = [name for name in stage.needs if name in uncertain]
        artifacts[stage.artifact] = (
            newest.ref if newest else ArtifactRef(name=stage.artifact, version=NOT_BUILT, sha256=NOT_BUILT)
        )
        if reason or changing:
            uncertain.append(stage.artifact)
        yield f"{stage.label}: {_outcome(newest, reason, changing)}"


def _final_verdict(step: Step, settings: Settings) -> Verdict:
    identity = read_identity(step.payload("dataset"))
    predictions = read_table(step.payload("predictions") / "predictions.parquet")
    inputs = read_gate_inputs(step.store, step.artifacts, identity, predictions)
    return decide(settings.promote, settings.tolerance, step.artifacts, identity, inputs)


def _outcome(newest: Manifest | None, reason: str | None, changing: Sequence[str]) -> str:
    if newest and not reason:
        return f"cache hit {newest.ref}" + (f", unless {' and '.join(changing)} changes" if changing else "")
    outcome = reason or ""
    for name in changing:
        outcome = outcome.replace(f"input {name} changed", f"input {name} will be rebuilt")
    return outcome
