"""The current run: whose files stand at the store's root, and how that came about.

`current.json` alone says which run that is. The root files, the log of promotions and the run's own record follow it,
and are put right whenever they do not.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import ValidationError

from tasks.core.data.identity import Identity
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.runtime import environment, files
from tasks.core.store.artifact import ArtifactRef, Log
from tasks.core.store.opening import open_without_repair
from tasks.core.store.promotion_log import (
    LogEntry,
    append_entry,
    has_promotion,
    last_promotion,
    read_log,
    standing_runs,
)
from tasks.core.store.runs import RunRecord, read_record, record_name, write_record
from tasks.core.store.storage import CURRENT, LOG, QUARANTINE, ROOT_FILES, timestamped
from tasks.core.store.store import DamagedArtifact, Store, now

LOCK = "promotion"


class Current(LogEntry):
    """The current run: what `current.json` holds."""

    action: Literal["promote", "rollback"] = "promote"
    identity: Identity
    artifacts: dict[str, ArtifactRef]

    @property
    def entry(self) -> LogEntry:
        return LogEntry(**self.model_dump(include=set(LogEntry.model_fields)))


class CurrentRunUnknown(EnvironmentFailure):
    """A run was promoted, and `current.json` does not tell which one any more."""


def read_current(store: Store) -> Current | None:
    """The current run; None where there never was one."""
    content = store.storage.read(CURRENT)
    if content is None and has_promotion(store):
        content = store.storage.read(CURRENT) or b""  # it may be there now: another process promoted the first run
    current = _parsed(content)
    if content is not None and current is None:
        path, got = f"{store.storage.location}/{CURRENT}", "something else" if content else "nothing"
        raise CurrentRunUnknown(f"{path}: expected the current run, got {got}; name it by `cifar promote RUN`")
    return current


def reconstruct_current(store: Store) -> Current | None:
    """The current run by the log of promotions and its own record, where these can tell."""
    entry = last_promotion(store)
    record = read_record(store, entry.run) if entry else None
    if entry and record and record.dataset and _has_root_files(record):
        return Current(**entry.model_dump(), identity=record.dataset, artifacts=record.artifacts)
    return None


def _parsed(content: bytes | None) -> Current | None:
    with suppress(ValidationError):
        return Current.model_validate_json(content or b"")
    return None


def _content(current: Current) -> bytes:
    return files.pretty_json(current.model_dump(mode="json"))


def _has_root_files(record: RunRecord) -> bool:
    return not record.collected and set(ROOT_FILES.values()) <= set(record.artifacts)


def promote_run(store: Store, record: RunRecord, why: str, log: Log) -> Current:
    """Make a completed run the current one because someone says so, whatever the gate would say."""
    with promotion_lock(store, log):
        before = _parsed(store.storage.read(CURRENT))  # if it is lost, this is how another one is named
        return _make_existing_current(store, record, before, "promote", why, instead_of=None)


def roll_back(store: Store, target: RunRecord, why: str, log: Log) -> Current:
    """Make the run that was current before the current one the current one again."""
    with promotion_lock(store, log):
        before, standing = read_current(store), standing_runs(read_log(store))
        if before is None or [target.run, before.run] != standing[-2:]:
            raise EnvironmentFailure(
                f"rollback to {target.run}: another run was promoted meanwhile; look at it, and try again"
            )
        return _make_existing_current(store, target, before, "rollback", why, instead_of=before.run)


def _make_existing_current(
    store: Store,
    record: RunRecord,
    before: Current | None,
    action: Literal["promote", "rollback"],
    why: str,
    instead_of: str | None,
) -> Current:
    if record.status != "completed" or not record.dataset or not _has_root_files(record):
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
    make_current(store, current, before, if_overtaken="look at it, and try again")
    _repair_record(store, current)
    return current


def make_current(store: Store, current: Current, before: Current | None, *, if_overtaken: str) -> None:
    """Replace the current run, unless that is no longer `before`. The caller holds the promotion lock.

    WorldError, with the advice `if_overtaken`, if another machine was quicker.
    """
    if before:
        _log_promotion(store, before)  # which may have been cut short
    content = store.storage.read(CURRENT)
    if _parsed(content) != before or not store.storage.swap(CURRENT, content, _content(current)):
        raise EnvironmentFailure(f"run {current.run}: another machine promoted a run meanwhile; {if_overtaken}")
    _repair_root(store, current)


def open_store(location: Path | str, log: Log = print, *, must_exist: bool = False) -> Store:
    """The store at a folder or an `s3://bucket/prefix`, made if there is none, unless it `must_exist`.

    What killed processes left half done is swept away or, if it was a promotion, finished.
    """
    store = open_without_repair(location, log, must_exist=must_exist)
    with suppress(Timeout), FileLock(store.lock_path(LOCK)).acquire(timeout=0):  # who holds it has settled the store
        try:
            _repair(store, log)
        except DamagedArtifact as error:  # this run may be the one that makes it anew
            log(f"the promoted run's files cannot be put right yet: {error}")
        except CurrentRunUnknown as error:  # nothing can be promoted but by hand
            log(str(error))
    return store


@contextmanager
def promotion_lock(store: Store, log: Log) -> Iterator[None]:
    """Hold the promotion lock over a store whose last promotion is finished, as far as its files are there."""
    with store.locked(LOCK, log):
        with suppress(DamagedArtifact, CurrentRunUnknown):
            _repair(store, log)
        yield


def _repair(store: Store, log: Log) -> None:
    for name in (CURRENT, LOG, *ROOT_FILES):
        store.storage.sweep(name)
    try:
        current = read_current(store)
    except CurrentRunUnknown:
        _restore(store, log)
        current = read_current(store)
    if current:
        _repair_record(store, current)
        _repair_root(store, current)


def _repair_record(store: Store, current: Current) -> None:
    """Have a run's own record say that it was promoted, whoever decided that."""
    record = read_record(store, current.run)
    if record and not record.was_promoted:
        record.status, record.finished, record.error = "completed", record.finished or current.at, None
        record.verdict = f"promoted: {current.why}"
        store.storage.sweep(record_name(record.run))
        write_record(store, record)


def _restore(store: Store, log: Log) -> None:
    """Make a lost `current.json` anew, if the log of promotions can tell which run it was of."""
    lost, current = store.storage.read(CURRENT), reconstruct_current(store)
    if current is None:
        return
    if lost:
        store.storage.write(f"{QUARANTINE}/{timestamped(CURRENT)}", lost)
    if store.storage.swap(CURRENT, lost, _content(current)):
        was = "garbled, and set aside" if lost else "missing"
        log(f"{CURRENT} was {was}: by {LOG}, the current run is {current.run}; check the disk")


def _repair_root(store: Store, current: Current) -> None:
    _log_promotion(store, current)
    _repair_root_files(store, current)
    latest = read_current(store)
    if latest and latest != current:  # another machine promoted meanwhile, and may have been quicker
        _repair_root(store, latest)


def _log_promotion(store: Store, current: Current) -> None:
    if current.entry not in read_log(store):
        append_entry(store, current.entry)


def _repair_root_files(store: Store, current: Current) -> None:
    lost: list[str] = []
    for name, artifact in ROOT_FILES.items():
        ref = current.artifacts[artifact]
        manifest = store.manifest(ref.name, ref.version)
        if manifest is None or manifest.sha256 != ref.sha256:
            lost.append(f"{ref} of the promoted run {current.run} is lost; run again to have it made anew")
        elif any(store.storage.find_damage("", {name: manifest.files[name]})):
            try:
                store.storage.put(name, store.open(ref) / name)
            except DamagedArtifact as error:
                lost.append(str(error))
    if lost:
        raise DamagedArtifact(lost[0])
