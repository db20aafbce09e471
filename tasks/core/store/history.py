"""The history of a store: its runs, which of them a name means, and what each one came to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from tasks.core.errors import InputError
from tasks.core.evaluation.intervals import wilson_interval
from tasks.core.frozen_model import FrozenModel
from tasks.core.recipes import Recipe
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.promotion_log import LogEntry, read_log, rollback_reasons, standing_runs
from tasks.core.store.runs import RunRecord, Status, read_record, read_records, run_ids, with_actual_status
from tasks.core.store.store import Store

Standing = Literal["current", "promoted", "rolled back", "refused"]
SETTINGS = (*(name for name in Recipe.model_fields if name != "name"), "validation", "devices", "deterministic", "seed")
UNSAID = {("validation", 0), ("devices", 1), ("deterministic", False)}
MOST_NAMED = 3


class HistoryRow(FrozenModel):
    """One run in short; accuracies are in [0, 1], with the 95% interval (Wilson)."""

    run: str
    started: str
    who: str
    status: Status
    recipe: str
    dataset: str | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    standing: Standing | None
    collected: bool


def history(store: Store) -> list[HistoryRow]:
    """Every run, newest first."""
    standing = run_standings(read_log(store))
    records = reversed(read_records(store))
    return [_row(with_actual_status(store, record), standing.get(record.run)) for record in records]


def run_standings(log: Sequence[LogEntry]) -> dict[str, Standing]:
    """What became of each run that was ever judged, as far as its results were not the current ones already."""
    found: dict[str, Standing] = {entry.run: "refused" for entry in log}
    found |= dict.fromkeys(rollback_reasons(log), "rolled back")
    good = standing_runs(log)
    return found | dict.fromkeys(good, "promoted") | dict.fromkeys(good[-1:], "current")


def find_run(store: Store, name: str) -> RunRecord:
    """The run that is meant: its id, the only one that begins so, `current`, or `previous`.

    `previous` is the run that was current before the current one was promoted, by the log of promotions.
    """
    record = read_record(store, _run_id(store, name))
    if record is None:
        raise InputError(f"run {name}: its record cannot be read; `cifar verify` says more")
    return with_actual_status(store, record)


def _run_id(store: Store, name: str) -> str:
    if name in ("current", "previous"):
        good = standing_runs(read_log(store))
        place = 1 if name == "current" else 2
        if len(good) < place:
            raise InputError(
                f"run {name}: expected {place} or more promoted runs in {store.storage.location}, "
                f"got {len(good)}; see `cifar history`"
            )
        return good[-place]
    ids = run_ids(store)
    found = [name] if name in ids else [run for run in ids if name and run.startswith(name)]
    if not found:
        where = f"in {store.storage.location}"
        raise InputError(f"run {name!r}: expected the id of a run {where}, or how it begins; see `cifar history`")
    if len(found) > 1:
        named = ", ".join(found[-MOST_NAMED:])
        raise InputError(f"run {name!r}: expected one run that begins so, got {len(found)} ({named}); give more of it")
    return found[0]


def artifact_of(store: Store, name: str, artifact: str) -> ArtifactRef:
    """The artifact of a run, by names."""
    record = find_run(store, name)
    if record.collected:
        raise InputError(f"run {record.run}: its artifacts were collected on {record.collected}; run it again")
    if artifact not in record.artifacts:
        known = ", ".join(sorted(record.artifacts)) or "none"
        raise InputError(f"run {record.run}: expected one of its artifacts ({known}), got {artifact!r}")
    return record.artifacts[artifact]


def payload_of(store: Store, name: str, artifact: str) -> Path:
    """The checked table of a run's artifact, or its only file, or the folder with its files."""
    ref = artifact_of(store, name, artifact)
    folder, manifest = store.open(ref), store.manifest(ref.name, ref.version)
    names = list(manifest.files) if manifest else []
    if (table := f"{artifact}.parquet") in names:
        return folder / table
    return folder / names[0] if len(names) == 1 else folder


def _row(record: RunRecord, standing: Standing | None) -> HistoryRow:
    score = record.score
    low, high = wilson_interval(score.correct, score.images) if score else (None, None)
    return HistoryRow(
        run=record.run,
        started=record.started,
        who=record.who,
        status=record.status,
        recipe=describe_recipe(record.settings),
        dataset=record.dataset.name if record.dataset else None,
        accuracy=score.accuracy if score else None,
        accuracy_low=low,
        accuracy_high=high,
        standing=standing,
        collected=record.collected is not None,
    )


def describe_recipe(settings: Mapping[str, JsonValue]) -> str:
    """The recipe with what was set otherwise: `tutorial, epochs 3, seed 1`."""
    found = [(name, value) for name in SETTINGS if (value := settings.get(name)) is not None]
    own = [f"{name.replace('_', ' ')} {value}" for name, value in found if (name, value) not in UNSAID]
    return ", ".join([str(settings.get("recipe", "")), *own])
