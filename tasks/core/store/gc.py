"""Garbage collection: the artifacts of old runs that nobody promoted are given up; their records stay."""

from collections.abc import Iterable

from tasks.core.errors import EnvironmentFailure
from tasks.core.frozen_model import FrozenModel
from tasks.core.store.artifact import Log
from tasks.core.store.current import promotion_lock, read_current
from tasks.core.store.promotion_log import find_gaps, promoted_runs, read_log
from tasks.core.store.runs import (
    STARTING,
    RunRecord,
    mark_killed_runs,
    read_records,
    run_ids,
    write_record,
)
from tasks.core.store.store import RUNS, Store, now


class Garbage(FrozenModel):
    """A version that no kept run reaches."""

    name: str
    version: str
    bytes: int


class Plan(FrozenModel):
    """The runs whose artifacts are given up, and the versions that go with them."""

    kept: tuple[str, ...]
    runs: tuple[str, ...]
    versions: tuple[Garbage, ...]
    bytes: int


def collect_garbage(store: Store, keep: int, log: Log, *, dry_run: bool) -> Plan:
    """Give up what neither the newest `keep` runs reach nor any run that was ever promoted.

    No run can start meanwhile, and while one is in progress nothing is touched: it may be about to reuse anything.
    """
    with store.locked(STARTING, log), promotion_lock(store, log):
        mark_killed_runs(store)
        records = read_records(store)
        _refuse_where_unreadable(store, records)
        if not dry_run:
            _refuse_while_running(records)
            for name in store.storage.unfinished(RUNS):  # which a collection left that was killed
                store.storage.sweep(f"{RUNS}/{name}")
        plan = _plan(store, records, keep)
        if dry_run:
            return plan
        for record in records:
            if record.run in plan.runs:
                record.collected = now()
                write_record(store, record)
        for garbage in plan.versions:
            store.storage.delete(f"{garbage.name}/{garbage.version}")
        return plan


def _refuse_where_unreadable(store: Store, records: Iterable[RunRecord]) -> None:
    lost = set(run_ids(store)) - {record.run for record in records}
    if lost:
        raise EnvironmentFailure(
            f"gc: the record of run {min(lost)} cannot be read, nor what it reaches be told; nothing was touched; "
            "restore runs/ from a backup, or delete it"
        )
    for wrong, advice in find_gaps(store, records):
        raise EnvironmentFailure(f"gc: {wrong}; nothing was touched; {advice}")


def _refuse_while_running(records: Iterable[RunRecord]) -> None:
    running = next((record for record in records if record.status == "running"), None)
    if running:
        raise EnvironmentFailure(
            f"gc: run {running.run} of {running.who} is in progress; nothing was touched; try later"
        )


def _plan(store: Store, records: list[RunRecord], keep: int) -> Plan:
    here = [record for record in records if not record.collected]
    promoted = promoted_runs(read_log(store))
    newest = {record.run for record in here[max(0, len(here) - keep) :]}
    kept = [record for record in here if record.run in promoted | newest or record.status == "running"]
    reached = _reached(store, kept)
    garbage = [
        Garbage(name=name, version=version, bytes=store.storage.bytes_in(f"{name}/{version}"))
        for name in store.artifacts()
        for version in store.versions(name)
        if (name, version) not in reached
    ]
    rolled_back_run = tuple(record.run for record in here if record not in kept)
    return Plan(
        kept=tuple(record.run for record in kept),
        runs=rolled_back_run,
        versions=tuple(garbage),
        bytes=sum(each.bytes for each in garbage),
    )


def _reached(store: Store, kept: Iterable[RunRecord]) -> set[tuple[str, str]]:
    """What the kept runs and the current one are made of, all the way up."""
    current = read_current(store)
    waiting = [ref for record in kept for ref in record.artifacts.values()]
    waiting += current.artifacts.values() if current else []
    reached: set[tuple[str, str]] = set()
    while waiting:
        ref = waiting.pop()
        if (ref.name, ref.version) not in reached:
            reached.add((ref.name, ref.version))
            manifest = store.manifest(ref.name, ref.version)
            waiting += manifest.inputs if manifest else ()
    return reached
