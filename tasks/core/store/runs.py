"""Run records: what each run was asked, used, made and came to, on record from its start."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from tasks.core.data.identity import Identity
from tasks.core.errors import CifarFlowError
from tasks.core.frozen_model import FrozenModel
from tasks.core.runtime import environment, files
from tasks.core.store.artifact import ArtifactRef, Log
from tasks.core.store.store import RUNS, Store, now

Status = Literal["running", "completed", "failed", "interrupted", "killed"]
STARTING = "starting"
LONGEST_RUN = timedelta(days=7)


class Score(FrozenModel):
    """How many of the test images a run's network got right."""

    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.images


class RunRecord(BaseModel):
    """One run; `killed` means that its process ended without a word, `collected` when its artifacts were given up.

    `locks` is the folder on its machine where it holds its lock.
    """

    model_config = ConfigDict(extra="forbid")

    run: str
    status: Status = "running"
    started: str
    finished: str | None = None
    who: str
    locks: str | None = None
    settings: dict[str, JsonValue]
    artifacts: dict[str, ArtifactRef] = {}
    dataset: Identity | None = None
    score: Score | None = None
    verdict: str | None = None
    error: str | None = None
    git: dict[str, str | bool] | None
    versions: dict[str, str]
    facts: dict[str, JsonValue] = {}
    collected: str | None = None

    @property
    def was_promoted(self) -> bool:
        """Whether it was ever promoted; whether it still stands is told by the log of promotions."""
        return self.status == "completed" and (self.verdict or "").startswith("promoted: ")


@dataclass
class Run:
    """A run in progress; every change is on record at once."""

    store: Store
    record: RunRecord

    def keep(self, *refs: ArtifactRef) -> None:
        """Note artifacts that this run used or made."""
        self.record.artifacts |= {ref.name: ref for ref in refs}
        self.save()

    def end(self, status: Status, error: str | None = None) -> None:
        self.record.status, self.record.error, self.record.finished = status, error, now()
        self.save()

    def save(self) -> None:
        write_record(self.store, self.record)


@contextmanager
def recording_run(
    store: Store, settings: Mapping[str, JsonValue], facts: Mapping[str, JsonValue], log: Log = print
) -> Iterator[Run]:
    """A run on record from now on, with how it ended, whichever way it leaves the block."""
    run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    record = RunRecord(
        run=run_id,
        started=now(),
        who=environment.who(),
        locks=_lock_folder(store),
        settings=dict(settings),
        git=environment.git_commit(),
        versions=environment.versions(),
        facts=dict(facts),
    )
    run = Run(store.for_run(run_id), record)
    with _liveness_lock(store, run_id):
        with store.locked(STARTING, log):
            mark_killed_runs(store)
            run.save()
        try:
            yield run
        except Exception as error:
            words = " ".join(str(error).split())
            run.end("failed", words if isinstance(error, CifarFlowError) else f"{type(error).__name__}: {words}")
            raise
        except BaseException as error:  # Ctrl-C, or a worker that cancels
            run.end("interrupted", type(error).__name__)
            raise
        if record.status == "running":
            run.end("completed")


def mark_killed_runs(store: Store) -> None:
    """Mark the runs whose process ended without a word: still `running`, and nobody holds their lock.

    The caller holds the lock `starting`.
    """
    for record in read_records(store):
        found = with_actual_status(store, record)
        if record.status == "running" and found.status == "killed":
            store.storage.sweep(record_name(record.run))
            write_record(store, found)
            _lock_path(store, record.run).unlink(missing_ok=True)
    for name in set(store.storage.unfinished(RUNS)) - set(store.storage.names(RUNS)):
        store.storage.sweep(f"{RUNS}/{name}")  # a first record is only written under the lock that is held now


def with_actual_status(store: Store, record: RunRecord) -> RunRecord:
    """A record that was just read, as `killed` where it is `running` and its process is gone; nothing is written."""
    if record.status != "running" or not _is_lock_visible(store, record) or _is_locked(_lock_path(store, record.run)):
        return record
    again = read_record(store, record.run) or record  # it may have come to its end meanwhile
    return again.model_copy(update={"status": "killed"}) if again.status == "running" else again


def _is_lock_visible(store: Store, record: RunRecord) -> bool:
    """Whether a run's lock can be seen from here; where it cannot, no run is believed to last longer than a week."""
    if not store.storage.shared or (record.who, record.locks) == (environment.who(), _lock_folder(store)):
        return True
    return datetime.now(UTC) - datetime.fromisoformat(record.started) > LONGEST_RUN


def _is_locked(path: Path) -> bool:
    if path.exists():
        try:
            with FileLock(path).acquire(timeout=0):
                pass
        except Timeout:
            return True
    return False


def run_ids(store: Store) -> list[str]:
    """Every run that is on record, oldest first."""
    return sorted(name.removesuffix(".json") for name in store.storage.names(RUNS) if name.endswith(".json"))


def read_records(store: Store) -> list[RunRecord]:
    """Every run that is on record, oldest first; a file that holds no record is left out."""
    found = store.storage.read_all(record_name(run) for run in run_ids(store))
    records = [record for content in found.values() if (record := _parsed(content))]
    return sorted(records, key=lambda record: (record.started, record.run))


def read_record(store: Store, run: str) -> RunRecord | None:
    """A run's record, or None where there is none that holds together."""
    return _parsed(store.storage.read(record_name(run)))


def write_record(store: Store, record: RunRecord) -> None:
    store.storage.write(record_name(record.run), files.pretty_json(record.model_dump(mode="json")))


def record_name(run: str) -> str:
    return f"{RUNS}/{run}.json"


def _parsed(content: bytes | None) -> RunRecord | None:
    with suppress(ValidationError):
        return RunRecord.model_validate_json(content or b"")
    return None


@contextmanager
def _liveness_lock(store: Store, run_id: str) -> Iterator[None]:
    lock = _lock_path(store, run_id)
    try:
        with FileLock(lock):
            yield
    finally:
        lock.unlink(missing_ok=True)


def _lock_folder(store: Store) -> str:
    return str(store.storage.local.resolve())


def _lock_path(store: Store, run_id: str) -> Path:
    return store.lock_path(f"run-{run_id}")
