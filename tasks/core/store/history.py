"""The history of a store: its runs, their standings, and finding a run or its artifacts by name."""

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
HIDDEN_DEFAULTS = {("validation", 0), ("devices", 1), ("deterministic", False)}
MAX_MATCHES_SHOWN = 3


class HistoryRow(FrozenModel):
    """A summary of one run; accuracies are in [0, 1], with the 95% interval (Wilson)."""

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
    """The standing of each run in the promotion log."""
    standings: dict[str, Standing] = {entry.run: "refused" for entry in log}
    standings |= dict.fromkeys(rollback_reasons(log), "rolled back")
    promoted = standing_runs(log)
    return standings | dict.fromkeys(promoted, "promoted") | dict.fromkeys(promoted[-1:], "current")


def find_run(store: Store, name: str) -> RunRecord:
    """The record of a run by its id, the unique beginning of its id, `current`, or `previous`.

    `previous` is the run that was current before the current one was promoted, by the promotion log.
    """
    record = read_record(store, _run_id(store, name))
    if record is None:
        raise InputError(f"run {name}: its record cannot be read", advice="see `cifar verify`")
    return with_actual_status(store, record)


def _run_id(store: Store, name: str) -> str:
    if name in ("current", "previous"):
        return _promoted_run_id(store, name, 1 if name == "current" else 2)
    ids = run_ids(store)
    matches = [name] if name in ids else [run for run in ids if name and run.startswith(name)]
    if not matches:
        expected = f"the id of a run in {store.storage.location}, or its beginning"
        raise InputError(f"run {name!r}", expected=expected, advice="see `cifar history`")
    if len(matches) > 1:
        got = f"{len(matches)} ({', '.join(matches[-MAX_MATCHES_SHOWN:])})"
        raise InputError(f"run {name!r}", expected="the beginning of one run's id", got=got, advice="give more of it")
    return matches[0]


def _promoted_run_id(store: Store, name: str, place: int) -> str:
    promoted = standing_runs(read_log(store))
    if len(promoted) < place:
        expected = f"{place} or more promoted runs in {store.storage.location}"
        raise InputError(f"run {name}", expected=expected, got=str(len(promoted)), advice="see `cifar history`")
    return promoted[-place]


def find_artifact(store: Store, run: str, artifact: str) -> ArtifactRef:
    """The artifact of a run, both by name."""
    record = find_run(store, run)
    if record.collected:
        problem = f"run {record.run}: its artifacts were collected on {record.collected}"
        raise InputError(problem, advice="run it again")
    if artifact not in record.artifacts:
        names = ", ".join(sorted(record.artifacts)) or "none"
        raise InputError(f"run {record.run}", expected=f"one of its artifacts ({names})", got=repr(artifact))
    return record.artifacts[artifact]


def payload_path(store: Store, run: str, artifact: str) -> Path:
    """The checked table of a run's artifact, or its only file, or the folder of its files."""
    ref = find_artifact(store, run, artifact)
    folder, names = store.open(ref), list(store.manifest_of(ref).files)
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
    """The recipe with the settings that differ from it: `tutorial, epochs 3, seed 1`."""
    values = [(name, value) for name in SETTINGS if (value := settings.get(name)) is not None]
    shown = [f"{name.replace('_', ' ')} {value}" for name, value in values if (name, value) not in HIDDEN_DEFAULTS]
    return ", ".join([str(settings.get("recipe", "")), *shown])
