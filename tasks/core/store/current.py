"""The current run: whose files stand at the store's root, and how that came about.

`current.json` alone says which run that is. The root files, the log of promotions and the run's own record follow it,
and are put right whenever they do not.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.core import environment, files
from tasks.core.errors import InputError, WorldError
from tasks.core.identity import Identity
from tasks.core.store.artifact import ArtifactRef, Log
from tasks.core.store.runs import RunRecord, read_record, record_name, write_record
from tasks.core.store.versions import DamagedArtifact, Store, now, open_unsettled

ROOT_FILES = {
    "per_class.parquet": "per_class",
    "predictions.parquet": "predictions",
    "cifar_net.pth": "weights",
    "report.html": "report",
    "metrics.json": "report",
}
CURRENT, LOG, LOCK = "current.json", "promotions.jsonl", "promotion"


class LogEntry(BaseModel):
    """One line of the log of promotions; a rollback names the run that it put out of its place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["promote", "refuse", "rollback"]
    run: str
    at: str
    who: str
    why: str
    instead_of: str | None = None


class Current(LogEntry):
    """The current run: what `current.json` holds."""

    action: Literal["promote", "rollback"] = "promote"
    identity: Identity
    artifacts: dict[str, ArtifactRef]

    @property
    def entry(self) -> LogEntry:
        return LogEntry(**self.model_dump(include=set(LogEntry.model_fields)))


def read_current(store: Store) -> Current | None:
    return _parsed(store, store.storage.read(CURRENT))


def _parsed(store: Store, content: bytes | None) -> Current | None:
    try:
        return None if content is None else Current.model_validate_json(content)
    except ValidationError:
        path = f"{store.storage.location}/{CURRENT}"
        raise WorldError(f"{path}: expected a promoted run, got something else; delete it to promote anew") from None


def read_log(store: Store) -> list[LogEntry]:
    """The log of promotions, oldest first, without the lines that a power cut tore."""
    return [entry for entry in _log_lines(store) if entry]


def torn_lines(store: Store) -> int:
    return _log_lines(store).count(None)


def _log_lines(store: Store) -> list[LogEntry | None]:
    lines = (store.storage.read(LOG) or b"").split(b"\n")
    return [_log_entry(line) for line in lines if line.strip()]


def _log_entry(line: bytes) -> LogEntry | None:
    with suppress(ValidationError):
        return LogEntry.model_validate_json(line)
    return None


def in_good_standing(log: Sequence[LogEntry]) -> list[str]:
    """The runs that were promoted and not rolled back since, in that order; the last one is the current one."""
    standing: list[str] = []
    for entry in log:
        if entry.action != "refuse":
            standing = [run for run in standing if run not in (entry.run, entry.instead_of)]
            standing.append(entry.run)
    return standing


def rolled_back(log: Sequence[LogEntry]) -> dict[str, str]:
    """The runs that were rolled back and not promoted since, and why."""
    reasons: dict[str, str] = {}
    for entry in log:
        if entry.action == "promote":
            reasons.pop(entry.run, None)
        if entry.action == "rollback" and entry.instead_of:
            reasons[entry.instead_of] = entry.why
    return reasons


def promote_run(store: Store, record: RunRecord, why: str, log: Log) -> Current:
    """Make a completed run the current one because someone says so, whatever the gate would say."""
    with settled(store, log):
        before = read_current(store)
        return _made_current_again(store, record, before, "promote", why, instead_of=None)


def roll_back(store: Store, target: RunRecord, why: str, log: Log) -> Current:
    """Make the run that was current before the current one the current one again."""
    with settled(store, log):
        before, standing = read_current(store), in_good_standing(read_log(store))
        if before is None or [target.run, before.run] != standing[-2:]:
            raise WorldError(f"rollback to {target.run}: another run was promoted meanwhile; look at it, and try again")
        return _made_current_again(store, target, before, "rollback", why, instead_of=before.run)


def _made_current_again(
    store: Store,
    record: RunRecord,
    before: Current | None,
    action: Literal["promote", "rollback"],
    why: str,
    instead_of: str | None,
) -> Current:
    missing = set(ROOT_FILES.values()) - set(record.artifacts)
    if record.collected or record.status != "completed" or missing or not record.dataset:
        found = "whose artifacts were collected" if record.collected else f"that is {record.status}"
        raise InputError(f"run {record.run}: expected a completed run, got one {found}; see `cifar history`")
    for ref in record.artifacts.values():
        if ref.name in ROOT_FILES.values():
            store.open(ref)
    current = Current(
        action=action,
        run=record.run,
        at=now(),
        who=environment.who(),
        why=why,
        instead_of=instead_of,
        identity=record.dataset,
        artifacts=record.artifacts,
    )
    make_current(store, current, before)
    return current


def make_current(store: Store, current: Current, before: Current | None) -> None:
    """Replace the current run, unless that is no longer `before`. The caller holds the promotion lock."""
    if before:
        _log_promotion(store, before)  # which may have been cut short
    content = store.storage.read(CURRENT)
    new = files.readable_json(current.model_dump(mode="json"))
    if _parsed(store, content) != before or not store.storage.swap(CURRENT, content, new):
        raise WorldError(
            f"run {current.run}: another machine promoted a run meanwhile; run again to be judged against that one"
        )
    _put_right(store, current)


def open_store(location: Path | str, log: Log = print, *, must_exist: bool = False) -> Store:
    """The store at a folder or an `s3://bucket/prefix`, made if there is none, unless it `must_exist`.

    What killed processes left half done is swept away or, if it was a promotion, finished.
    """
    store = open_unsettled(location, must_exist=must_exist)
    with suppress(Timeout), FileLock(store.lock_path(LOCK)).acquire(timeout=0):  # who holds it has settled the store
        try:
            _settle(store)
        except DamagedArtifact as error:  # this run may be the one that makes it anew
            log(f"the promoted run's files cannot be put right yet: {error}")
    return store


@contextmanager
def settled(store: Store, log: Log) -> Iterator[None]:
    """Hold the promotion lock over a store whose last promotion is finished, as far as its files are there."""
    with store.locked(LOCK, log):
        with suppress(DamagedArtifact):
            _settle(store)
        yield


def _settle(store: Store) -> None:
    for name in (CURRENT, LOG, *ROOT_FILES):
        store.storage.sweep(name)
    if current := read_current(store):
        record = read_record(store, current.run)
        if record and record.status != "completed":
            record.status, record.finished, record.error = "completed", current.at, None
            store.storage.sweep(record_name(record.run))
            write_record(store, record)
        _put_right(store, current)


def _put_right(store: Store, current: Current) -> None:
    _log_promotion(store, current)
    _put_root_files_right(store, current)
    latest = read_current(store)
    if latest and latest != current:  # another machine promoted meanwhile, and may have been quicker
        _put_right(store, latest)


def _log_promotion(store: Store, current: Current) -> None:
    if current.entry not in read_log(store):
        append_entry(store, current.entry)


def _put_root_files_right(store: Store, current: Current) -> None:
    lost: list[str] = []
    for name, artifact in ROOT_FILES.items():
        ref = current.artifacts[artifact]
        manifest = store.manifest(ref.name, ref.version)
        if manifest is None or manifest.sha256 != ref.sha256:
            lost.append(f"{ref} of the promoted run {current.run} is lost; run again to have it made anew")
        elif any(store.storage.damaged("", {name: manifest.files[name]})):
            try:
                store.storage.put(name, store.open(ref) / name)
            except DamagedArtifact as error:
                lost.append(str(error))
    if lost:
        raise DamagedArtifact(lost[0])


def append_entry(store: Store, entry: LogEntry) -> None:
    store.append(LOG, entry.model_dump(mode="json", exclude_none=True))
