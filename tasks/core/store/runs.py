"""Run records: the settings, artifacts and result of each run, written from its start."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Self

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, JsonValue, model_validator

from tasks.core.data.identity import Identity
from tasks.core.errors import CifarFlowError
from tasks.core.frozen_model import FrozenModel
from tasks.core.runtime import environment, files
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.storage import RUNS, parse_json
from tasks.core.store.store import Store, now

Status = Literal["running", "completed", "failed", "interrupted", "killed"]
Promotion = Literal["promote", "keep", "refuse"]
START_LOCK = "starting"
LONGEST_RUN = timedelta(days=7)


class Score(FrozenModel):
    """The correct predictions among the test images."""

    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.images


class RunRecord(BaseModel):
    """One run."""

    model_config = ConfigDict(extra="forbid")

    run: str
    status: Status = "running"  # `killed` if its process ended without recording why
    started: str
    finished: str | None = None
    who: str
    locks: str | None = None  # the folder on its machine where it holds its lock
    settings: dict[str, JsonValue]
    artifacts: dict[str, ArtifactRef] = {}
    dataset: Identity | None = None
    score: Score | None = None
    promotion: Promotion | None = None  # by the promotion gate; `keep` if its results are those of the current run
    verdict: str | None = None  # the same as a sentence with the reason
    error: str | None = None
    git: dict[str, str | bool] | None
    versions: dict[str, str]
    facts: dict[str, JsonValue] = {}
    collected: str | None = None  # when `cifar gc` removed its artifacts

    @model_validator(mode="after")
    def _read_promotion_from_verdict(self) -> Self:
        """Records written before version 0.2 have the sentence only."""
        if self.verdict and not self.promotion:
            kinds: dict[str, Promotion] = {"promoted": "promote", "not promoted": "refuse"}
            self.promotion = kinds.get(self.verdict.partition(": ")[0], "keep")
        return self

    @property
    def was_promoted(self) -> bool:
        """Whether it was ever promoted; the promotion log says whether it was rolled back since."""
        return self.status == "completed" and self.promotion == "promote"


@dataclass
class Run:
    """A run in progress; every change is recorded at once."""

    store: Store
    record: RunRecord

    def add_artifacts(self, *refs: ArtifactRef) -> None:
        """Record artifacts that this run used or built."""
        self.record.artifacts |= {ref.name: ref for ref in refs}
        self.save()

    def end(self, status: Status, error: str | None = None) -> None:
        self.record.status, self.record.error, self.record.finished = status, error, now()
        self.save()

    def save(self) -> None:
        write_record(self.store, self.record)


@contextmanager
def recording_run(store: Store, settings: Mapping[str, JsonValue], facts: Mapping[str, JsonValue]) -> Iterator[Run]:
    """A new run, recorded from now on; its record says how the block ended."""
    run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    record = RunRecord(
        run=run_id,
        started=now(),
        who=environment.current_user(),
        locks=_lock_folder(store),
        settings=dict(settings),
        git=environment.git_commit(),
        versions=environment.versions(),
        facts=dict(facts),
    )
    run = Run(store.for_run(run_id), record)
    with _liveness_lock(store, run_id):
        with store.lock(START_LOCK):
            mark_killed_runs(store)
            run.save()
        try:
            yield run
        except Exception as error:
            message = " ".join(str(error).split())
            run.end("failed", message if isinstance(error, CifarFlowError) else f"{type(error).__name__}: {message}")
            raise
        except BaseException as error:  # Ctrl-C, or a worker that cancels
            run.end("interrupted", type(error).__name__)
            raise
        if record.status == "running":
            run.end("completed")


def mark_killed_runs(store: Store) -> None:
    """Mark the runs that are recorded as `running` while nobody holds their lock. The caller holds START_LOCK."""
    for record in read_records(store):
        actual = with_actual_status(store, record)
        if record.status == "running" and actual.status == "killed":
            store.storage.remove_partial_writes(record_name(record.run))
            write_record(store, actual)
            _lock_path(store, record.run).unlink(missing_ok=True)
    for name in set(store.storage.partial_writes(RUNS)) - set(store.storage.names(RUNS)):
        store.storage.remove_partial_writes(f"{RUNS}/{name}")  # a first record is only written under START_LOCK


def with_actual_status(store: Store, record: RunRecord) -> RunRecord:
    """A record as `killed` if it is `running` and its process is gone; nothing is written."""
    if record.status != "running" or not _is_lock_visible(store, record) or _is_locked(_lock_path(store, record.run)):
        return record
    again = read_record(store, record.run) or record  # it may have ended meanwhile
    return again.model_copy(update={"status": "killed"}) if again.status == "running" else again


def _is_lock_visible(store: Store, record: RunRecord) -> bool:
    """Whether a run's lock is visible here; a run elsewhere counts as killed after a week."""
    if not store.storage.is_shared or (record.who, record.locks) == (environment.current_user(), _lock_folder(store)):
        return True
    return datetime.now(UTC) - datetime.fromisoformat(record.started) > LONGEST_RUN


def _is_locked(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0) if path.exists() else nullcontext():
            return False
    except Timeout:
        return True


def run_ids(store: Store) -> list[str]:
    """The id of every run, oldest first."""
    return sorted(name.removesuffix(".json") for name in store.storage.names(RUNS) if name.endswith(".json"))


def read_records(store: Store) -> list[RunRecord]:
    """Every readable run record, oldest first."""
    contents = store.storage.read_all(record_name(run) for run in run_ids(store))
    records = [record for content in contents.values() if (record := parse_json(RunRecord, content))]
    return sorted(records, key=lambda record: (record.started, record.run))


def read_record(store: Store, run: str) -> RunRecord | None:
    """A run's record; None if it is missing or damaged."""
    return parse_json(RunRecord, store.storage.read(record_name(run)))


def write_record(store: Store, record: RunRecord) -> None:
    store.storage.write(record_name(record.run), files.pretty_json(record.model_dump(mode="json")))


def record_name(run: str) -> str:
    return f"{RUNS}/{run}.json"


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
