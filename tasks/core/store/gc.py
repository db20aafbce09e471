"""Garbage collection: remove the artifacts of old runs that were never promoted; run records stay."""

from collections.abc import Iterable

from tasks.core.errors import EnvironmentFailure
from tasks.core.frozen_model import FrozenModel
from tasks.core.store.current import promotion_lock, read_current
from tasks.core.store.promotion_log import find_gaps, promoted_runs, read_log
from tasks.core.store.runs import START_LOCK, RunRecord, mark_killed_runs, read_records, run_ids, write_record
from tasks.core.store.storage import RUNS
from tasks.core.store.store import Store, now


class Garbage(FrozenModel):
    """A version that no kept run needs."""

    name: str
    version: str
    bytes: int


class Plan(FrozenModel):
    """The runs that lose their artifacts, and the versions to remove."""

    kept: tuple[str, ...]
    runs: tuple[str, ...]
    versions: tuple[Garbage, ...]
    bytes: int


def collect_garbage(store: Store, keep: int, *, dry_run: bool) -> Plan:
    """Remove the versions that neither the newest `keep` runs need nor any run that was ever promoted.

    No run can start meanwhile. Nothing is removed while a run is in progress, as it may reuse any version.
    """
    with store.lock(START_LOCK), promotion_lock(store):
        mark_killed_runs(store)
        records = read_records(store)
        _require_readable(store, records)
        plan = _plan(store, records, keep)
        if dry_run:
            return plan
        if running := [record for record in records if record.status == "running"]:
            problem = f"gc: run {running[0].run} of {running[0].who} is in progress; nothing was removed"
            raise EnvironmentFailure(problem, advice="try later")
        for name in store.storage.partial_writes(RUNS):  # left by a killed collection
            store.storage.remove_partial_writes(f"{RUNS}/{name}")
        for record in records:
            if record.run in plan.runs:
                record.collected = now()
                write_record(store, record)
        for garbage in plan.versions:
            store.storage.delete(f"{garbage.name}/{garbage.version}")
        return plan


def _require_readable(store: Store, records: Iterable[RunRecord]) -> None:
    unreadable = set(run_ids(store)) - {record.run for record in records}
    if unreadable:
        problem = f"gc: the record of run {min(unreadable)} cannot be read; nothing was removed"
        raise EnvironmentFailure(problem, advice="restore runs/ from a backup, or delete it")
    for problem, advice in find_gaps(store, records):
        raise EnvironmentFailure(f"gc: {problem}; nothing was removed", advice=advice)


def _plan(store: Store, records: list[RunRecord], keep: int) -> Plan:
    uncollected = [record for record in records if not record.collected]
    promoted = promoted_runs(read_log(store))
    newest = {record.run for record in uncollected[max(0, len(uncollected) - keep) :]}
    kept = [record for record in uncollected if record.run in promoted | newest or record.status == "running"]
    needed = _needed_versions(store, kept)
    garbage = [
        Garbage(name=name, version=version, bytes=store.storage.bytes_in(f"{name}/{version}"))
        for name in store.artifact_names()
        for version in store.versions(name)
        if (name, version) not in needed
    ]
    return Plan(
        kept=tuple(record.run for record in kept),
        runs=tuple(record.run for record in uncollected if record not in kept),
        versions=tuple(garbage),
        bytes=sum(each.bytes for each in garbage),
    )


def _needed_versions(store: Store, kept: Iterable[RunRecord]) -> set[tuple[str, str]]:
    current = read_current(store)
    queue = [ref for record in kept for ref in record.artifacts.values()]
    queue += current.artifacts.values() if current else []
    needed: set[tuple[str, str]] = set()
    while queue:
        ref = queue.pop()
        if (ref.name, ref.version) not in needed:
            needed.add((ref.name, ref.version))
            manifest = store.manifest(ref.name, ref.version)
            queue += manifest.inputs if manifest else ()
    return needed
