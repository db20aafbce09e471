"""Run records: what each run was asked, used, made and came to, on disk from its start."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from tasks.core import environment, files
from tasks.core.artifact import ArtifactRef
from tasks.core.errors import ExpectedError
from tasks.core.store import Store, now

Status = Literal["running", "completed", "failed", "interrupted", "killed"]


class RunRecord(BaseModel):
    """One run; `killed` means that its process ended without a word."""

    model_config = ConfigDict(extra="forbid")

    run: str
    status: Status = "running"
    started: str
    finished: str | None = None
    who: str
    settings: dict[str, JsonValue]
    artifacts: dict[str, ArtifactRef] = {}
    verdict: str | None = None
    error: str | None = None
    git: dict[str, str | bool] | None
    versions: dict[str, str]
    facts: dict[str, JsonValue] = {}


@dataclass
class Run:
    """A run in progress; every change is on disk at once."""

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
        files.write_json(_record_path(self.store, self.record.run), self.record.model_dump(mode="json"))


@contextmanager
def recorded_run(store: Store, settings: Mapping[str, JsonValue], facts: Mapping[str, JsonValue]) -> Iterator[Run]:
    """A run on record from now on, with how it ended, whichever way it leaves the block."""
    close_killed(store)
    run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    record = RunRecord(
        run=run_id,
        started=now(),
        who=environment.who(),
        settings=dict(settings),
        git=environment.git_commit(),
        versions=environment.versions(),
        facts=dict(facts),
    )
    (store.root / "runs").mkdir(exist_ok=True)
    run = Run(store.for_run(run_id), record)
    with _alive(store, run_id):
        run.save()
        try:
            yield run
        except Exception as error:
            words = " ".join(str(error).split())
            run.end("failed", words if isinstance(error, ExpectedError) else f"{type(error).__name__}: {words}")
            raise
        except BaseException as error:  # Ctrl-C, or a worker that cancels
            run.end("interrupted", type(error).__name__)
            raise
        if record.status == "running":
            run.end("completed")


def close_killed(store: Store) -> None:
    """Mark the runs whose process ended without a word: still `running`, and nobody holds their lock."""
    for path in sorted((store.root / "runs").glob("*.json")):
        record = read_record(path)
        if record and record.status == "running":
            with suppress(Timeout), FileLock(_lock_path(store, record.run)).acquire(timeout=0):
                record = read_record(path)
                if record and record.status == "running":
                    record.status = "killed"
                    files.write_json(path, record.model_dump(mode="json"))
                    _lock_path(store, record.run).unlink(missing_ok=True)
    for aside in sorted((store.root / "runs").glob(".*.json.*")):
        run_id = aside.name.removeprefix(".").partition(".json.")[0]
        with suppress(Timeout), FileLock(_lock_path(store, run_id)).acquire(timeout=0):
            aside.unlink(missing_ok=True)


def read_record(path: Path) -> RunRecord | None:
    """A run's record, or None where the file does not hold one."""
    with suppress(FileNotFoundError, ValidationError, UnicodeDecodeError):
        return RunRecord.model_validate_json(path.read_text(encoding="utf-8"))
    return None


@contextmanager
def _alive(store: Store, run_id: str) -> Iterator[None]:
    lock = _lock_path(store, run_id)
    try:
        with FileLock(lock):
            yield
    finally:
        lock.unlink(missing_ok=True)


def _lock_path(store: Store, run_id: str) -> Path:
    return store.work / "locks" / f"run-{run_id}.lock"


def _record_path(store: Store, run_id: str) -> Path:
    return store.root / "runs" / f"{run_id}.json"
