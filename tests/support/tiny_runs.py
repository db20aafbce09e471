"""Real runs on tiny images, stage by stage as the flow goes through them, without Prefect."""

from pathlib import Path

from tasks.core.config import Normalization, Settings, StageName
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
from tasks.core.promotion_gate import promotion_gate
from tasks.core.store import open_store
from tasks.core.store.artifact import Log, Stage
from tasks.core.store.runs import RunRecord, recording_run


def quiet(_: str) -> None:
    """A log that nobody reads."""


def tiny_run(store: Path | str, settings: Settings, log: Log = quiet) -> RunRecord:
    """One whole run of the pipeline, in this process."""
    training = training_of(settings)
    with recording_run(open_store(store, log), settings.to_record(), {}, log) as run:
        found = run.record.artifacts

        def keep(stage: Stage, name: StageName) -> None:
            run.keep(run.store.get_or_create(stage, log, refresh=settings.refresh == name).ref)

        keep(raw_stage(settings.source, settings.sha256, run.store.downloads), "download")
        keep(dataset_stage(run.store, found["raw"], Normalization()), "normalize")
        keep(data_checks_stage(run.store, found["dataset"]), "normalize")
        keep(weights_stage(run.store, found["dataset"], training), "train")
        recipe, device = training.recipe, training.hardware.device
        keep(predictions_stage(run.store, found["dataset"], found["weights"], recipe, device), "evaluate")
        keep(per_class_stage(run.store, found["predictions"]), "evaluate")
        with promotion_gate(run, settings.promote, settings.tolerance, log) as verdict:
            keep(report_stage(run.store, found, verdict, pinned=settings.sha256 is not None), "report")
    return run.record
