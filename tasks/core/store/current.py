"""The current run: the one whose files are at the store's root.

`current.json` is the only commit point of a promotion. The root files, the promotion log and the run's own record
follow it, and are repaired when the store is opened.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from tasks.core.data.identity import Identity
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.runtime import environment, files
from tasks.core.runtime.logs import logger
from tasks.core.store import promotion_log
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.opening import open_without_repair
from tasks.core.store.promotion_log import LogEntry
from tasks.core.store.reader import DamagedArtifact
from tasks.core.store.runs import RunRecord, read_record, record_name, write_record
from tasks.core.store.storage import CURRENT, LOG, QUARANTINE, ROOT_FILES, parse_json, timestamped
from tasks.core.store.store import Store, now

PROMOTION_LOCK = "promotion"
PromotingAction = Literal["promote", "rollback"]


class Current(LogEntry):
    """The content of `current.json`."""

    action: PromotingAction = "promote"
    identity: Identity
    artifacts: dict[str, ArtifactRef]

    @property
    def entry(self) -> LogEntry:
        return LogEntry(**self.model_dump(include=set(LogEntry.model_fields)))


class CurrentRunUnknown(EnvironmentFailure):
    """A run was promoted, but `current.json` is lost or damaged."""


def read_current(store: Store) -> Current | None:
    """The current run; None if no run was ever promoted."""
    content = store.storage.read(CURRENT)
    if content is None and promotion_log.has_promotion(store):
        content = store.storage.read(CURRENT) or b""  # another process may have promoted the first run meanwhile
    current = parse_json(Current, content)
    if content is not None and current is None:
        raise CurrentRunUnknown(
            f"{store.storage.location}/{CURRENT}",
            expected="the current run",
            got="something else" if content else "nothing",
            advice="name it by `cifar promote RUN`",
        )
    return current


def reconstruct_current(store: Store) -> Current | None:
    """The current run by the promotion log and its own record, if both are readable."""
    entry = promotion_log.last_promotion(store)
    record = read_record(store, entry.run) if entry else None
    if entry and record and record.dataset and _has_root_files(record):
        return Current(**entry.model_dump(), identity=record.dataset, artifacts=record.artifacts)
    return None


def _to_json(current: Current) -> bytes:
    return files.pretty_json(current.model_dump(mode="json"))


def _has_root_files(record: RunRecord) -> bool:
    return not record.collected and set(ROOT_FILES.values()) <= set(record.artifacts)


def promote_run(store: Store, record: RunRecord, why: str) -> Current:
    """Promote a completed run by hand; the promotion gate is not asked."""
    with promotion_lock(store):
        before = parse_json(Current, store.storage.read(CURRENT))  # or None if it is lost, to replace it
        return _make_existing_current(store, record, before, "promote", why)


def roll_back(store: Store, target: RunRecord, why: str) -> Current:
    """Make the previous run the current one again."""
    with promotion_lock(store):
        before, standing = read_current(store), promotion_log.standing_runs(promotion_log.read_log(store))
        if before is None or [target.run, before.run] != standing[-2:]:
            problem = f"rollback to {target.run}: another run was promoted meanwhile"
            raise EnvironmentFailure(problem, advice="look at it, and try again")
        return _make_existing_current(store, target, before, "rollback", why)


def _make_existing_current(
    store: Store, record: RunRecord, before: Current | None, action: PromotingAction, why: str
) -> Current:
    if record.status != "completed" or not record.dataset or not _has_root_files(record):
        got = "one whose artifacts were collected" if record.collected else f"one that is {record.status}"
        raise InputError(f"run {record.run}", expected="a completed run", got=got, advice="see `cifar history`")
    for artifact in ROOT_FILES.values():
        store.open(record.artifacts[artifact])
    current = Current(
        action=action,
        run=record.run,
        at=now(),
        who=environment.current_user(),
        why=why,
        instead_of=before.run if before and action == "rollback" else None,
        identity=record.dataset,
        artifacts=record.artifacts,
    )
    make_current(store, current, before, advice="look at it, and try again")
    _repair_record(store, current)
    return current


def make_current(store: Store, current: Current, before: Current | None, *, advice: str) -> None:
    """Replace the current run. The caller holds the promotion lock.

    Raises:
        EnvironmentFailure: The current run is no longer `before`, with the given advice.
    """
    if before:
        promotion_log.append_entry(store, before.entry)  # a kill may have prevented it
    content = store.storage.read(CURRENT)
    is_unchanged = parse_json(Current, content) == before
    if not is_unchanged or not store.storage.compare_and_swap(CURRENT, content, _to_json(current)):
        raise EnvironmentFailure(f"run {current.run}: another machine promoted a run meanwhile", advice=advice)
    _repair_root(store, current)


def open_store(location: Path | str, *, must_exist: bool = False) -> Store:
    """The store at a folder or an `s3://bucket/prefix`, created if there is none, unless it `must_exist`.

    A promotion that a kill interrupted is completed, and what else killed processes left is removed.
    """
    store = open_without_repair(location, must_exist=must_exist)
    with suppress(Timeout), FileLock(store.lock_path(PROMOTION_LOCK)).acquire(timeout=0):  # its holder repairs, too
        try:
            _repair(store)
        except DamagedArtifact as error:  # a later run may rebuild it
            logger.info(f"store: the current run's files cannot be restored yet: {error}")
        except CurrentRunUnknown as error:
            logger.info(f"store: {error}")
    return store


@contextmanager
def promotion_lock(store: Store) -> Iterator[None]:
    """Hold the promotion lock, and complete an interrupted promotion first."""
    with store.lock(PROMOTION_LOCK):
        with suppress(DamagedArtifact, CurrentRunUnknown):
            _repair(store)
        yield


def _repair(store: Store) -> None:
    for name in (CURRENT, LOG, *ROOT_FILES):
        store.storage.remove_partial_writes(name)
    try:
        current = read_current(store)
    except CurrentRunUnknown:
        _restore_current_json(store)
        current = read_current(store)
    if current:
        _repair_record(store, current)
        _repair_root(store, current)


def _repair_record(store: Store, current: Current) -> None:
    record = read_record(store, current.run)
    if record and not record.was_promoted:
        record.status, record.finished, record.error = "completed", record.finished or current.at, None
        record.promotion, record.verdict = "promote", f"promoted: {current.why}"
        store.storage.remove_partial_writes(record_name(record.run))
        write_record(store, record)


def _restore_current_json(store: Store) -> None:
    """Write a lost `current.json` again from the promotion log and the run's record, if both are readable."""
    lost, current = store.storage.read(CURRENT), reconstruct_current(store)
    if current is None:
        return
    if lost:
        store.storage.write(f"{QUARANTINE}/{timestamped(CURRENT)}", lost)
    if store.storage.compare_and_swap(CURRENT, lost, _to_json(current)):
        cause = f"was damaged, and is in {QUARANTINE}" if lost else "was missing"
        logger.info(
            f"store: restored {CURRENT}, which {cause}; by {LOG}, the current run is {current.run}; check the disk"
        )


def _repair_root(store: Store, current: Current) -> None:
    promotion_log.append_entry(store, current.entry)
    _repair_root_files(store, current)
    latest = read_current(store)
    if latest and latest != current:  # another machine promoted a run meanwhile
        _repair_root(store, latest)


def _repair_root_files(store: Store, current: Current) -> None:
    errors: list[DamagedArtifact] = []
    for name, artifact in ROOT_FILES.items():
        ref = current.artifacts[artifact]
        manifest = store.manifest(ref.name, ref.version)
        if manifest is None or manifest.sha256 != ref.sha256:
            problem = f"{ref} of the current run {current.run} is lost"
            errors.append(DamagedArtifact(problem, advice="run again to rebuild it"))
        elif any(store.storage.find_damage("", {name: manifest.files[name]})):
            try:
                store.storage.put_file(name, store.open(ref) / name)
            except DamagedArtifact as error:
                errors.append(error)
    if errors:
        raise errors[0]
