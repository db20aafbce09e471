"""What a run would reuse, what it would make, and why: told without running anything."""

from collections.abc import Iterable, Iterator, Mapping

from tasks.core.acquisition import at_hand
from tasks.core.config import Normalization, Settings, StageName
from tasks.core.data.dataset import load_dataset
from tasks.core.data.identity import read_identity
from tasks.core.data.sources import raw_stage
from tasks.core.pipeline import (
    data_checks_stage,
    dataset_stage,
    per_class_stage,
    predictions_stage,
    report_stage,
    training_of,
    weights_stage,
)
from tasks.core.promotion_gate import decide, read_gate_inputs
from tasks.core.runtime.parquet import read_table
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef, Log, Stage
from tasks.core.training.data import check_held_out

NOT_MADE = "not made yet"


def explain(store: Store, settings: Settings, log: Log) -> Iterator[str]:
    """One line a stage: what it would reuse, or why it would run, against the nearest earlier version.

    Whether a version that is made again has its old bytes again cannot be known: what depends on that says so.
    """
    training = training_of(settings)
    found: dict[str, ArtifactRef] = {}
    uncertain: list[str] = []

    def told(stage: Stage, name: StageName) -> str:
        newest = store.newest(stage.key)
        reason = store.why(stage, newest, store.damage(newest) if newest else None, refresh=settings.refresh == name)
        unknown = [ref.name for ref in stage.inputs if ref.name in uncertain]
        found[stage.key.name] = newest.ref if newest else _not_made(stage)
        if reason or unknown:
            uncertain.append(stage.key.name)
        if newest and not reason:
            condition = f", unless other bytes come out for {' and '.join(unknown)}" if unknown else ""
            return f"{stage.task}: reused {newest.ref}{condition}"
        return f"{stage.task} {_with_inputs_made_anew(reason or '', unknown)}"

    raw = raw_stage(settings.source, settings.sha256, store.downloads)
    ready = at_hand(store, raw, settings.refresh)
    if ready:
        found["raw"] = ready.ref
        yield f"{raw.task}: {ready.message}"
    else:
        yield told(raw, "download")
    yield told(dataset_stage(store, found["raw"], Normalization()), "normalize")
    yield told(data_checks_stage(store, found["dataset"]), "normalize")
    if "dataset" not in uncertain:
        check_held_out(load_dataset(store.open(found["dataset"])).train_labels, settings.validation)
    yield told(weights_stage(store, found["dataset"], training), "train")
    recipe, device = training.recipe, training.hardware.device
    yield told(predictions_stage(store, found["dataset"], found["weights"], recipe, device), "evaluate")
    yield told(per_class_stage(store, found["predictions"]), "evaluate")
    if uncertain:
        yield "report: its verdict follows from what is made before it"
        return
    yield told(_report(store, settings, found, log), "report")


def _not_made(stage: Stage) -> ArtifactRef:
    return ArtifactRef(name=stage.key.name, version=NOT_MADE, sha256=NOT_MADE)


def _with_inputs_made_anew(reason: str, inputs: Iterable[str]) -> str:
    for name in inputs:
        reason = reason.replace(f"input {name} changed", f"input {name} is made anew")
    return reason


def _report(store: Store, settings: Settings, found: Mapping[str, ArtifactRef], log: Log) -> Stage:
    """The report that the run would end with, its verdict included."""
    identity = read_identity(store.open(found["dataset"]))
    predictions = read_table(store.open(found["predictions"]) / "predictions.parquet")
    situation = read_gate_inputs(store, found, identity, predictions, log)
    verdict = decide(settings.promote, settings.tolerance, found, identity, situation)
    return report_stage(store, found, verdict, pinned=settings.sha256 is not None)
