"""The promotion log: every promotion, refusal and rollback, and the runs that stand after them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from tasks.core.frozen_model import FrozenModel
from tasks.core.runtime import files
from tasks.core.store.runs import RunRecord, read_records, run_ids
from tasks.core.store.storage import LOG, parse_json
from tasks.core.store.store import Store


class LogEntry(FrozenModel):
    """One line of the promotion log; a rollback names the run that it replaced in `instead_of`."""

    action: Literal["promote", "refuse", "rollback"]
    run: str
    at: str
    who: str
    why: str
    instead_of: str | None = None


def read_log(store: Store) -> list[LogEntry]:
    """The promotion log, oldest first, without unreadable lines."""
    return [entry for entry in _lines(store) if entry]


def append_entry(store: Store, entry: LogEntry) -> None:
    """Add a line to the promotion log unless it is there already; a torn last line is ended first."""
    line, is_there = files.canonical_json(entry.model_dump(mode="json", exclude_none=True)).encode(), False
    while not is_there:
        before = store.storage.read(LOG)
        lines = (before or b"").split(b"\n")
        end = b"\n" if lines[-1] else b""
        after = (before or b"") + end + line + b"\n"
        is_there = line in lines or store.storage.compare_and_swap(LOG, before, after)


def last_promotion(store: Store) -> LogEntry | None:
    """The entry that made the current run current; None if there is none, or if an unreadable line is newer."""
    return next((entry for entry in reversed(_lines(store)) if entry is None or entry.action != "refuse"), None)


def has_promotion(store: Store) -> bool:
    """Whether any run was ever promoted, by the log or by a run record."""
    return bool(standing_runs(read_log(store))) or any(record.was_promoted for record in read_records(store))


def standing_runs(log: Sequence[LogEntry]) -> list[str]:
    """The runs that were promoted and not rolled back since, in that order; the last one is current."""
    standing: list[str] = []
    for entry in log:
        if entry.action != "refuse":
            standing = [run for run in standing if run not in (entry.run, entry.instead_of)]
            standing.append(entry.run)
    return standing


def rollback_reasons(log: Sequence[LogEntry]) -> dict[str, str]:
    """The runs that were rolled back and not promoted since, with the reason."""
    reasons: dict[str, str] = {}
    for entry in log:
        if entry.action == "promote":
            reasons.pop(entry.run, None)
        if entry.action == "rollback" and entry.instead_of:
            reasons[entry.instead_of] = entry.why
    return reasons


def promoted_runs(log: Iterable[LogEntry]) -> set[str]:
    """Every run that was ever promoted, including those that were rolled back since."""
    return {entry.run for entry in log if entry.action != "refuse"}


def find_gaps(store: Store, records: Iterable[RunRecord]) -> Iterator[tuple[str, str]]:
    """Each contradiction between the log and the run records, with what to do about it."""
    lines = _lines(store)
    if torn := lines.count(None):
        yield f"{LOG}: {torn} lines cannot be read", "restore it from a backup, or delete them"
    promoted = promoted_runs(entry for entry in lines if entry)
    for run in sorted(promoted - set(run_ids(store))):
        yield f"run {run}: it was promoted, and has no record", f"restore runs/ from a backup, or delete it in {LOG}"
    missing = [record.run for record in records if record.was_promoted and record.run not in promoted]
    if missing:
        problem = f"{LOG}: {len(missing)} runs that were promoted by their records are missing, such as {missing[-1]}"
        yield problem, "restore it from a backup, or `cifar promote` them again"


def _lines(store: Store) -> list[LogEntry | None]:
    """The entries, oldest first; None for each line that cannot be read."""
    lines = (store.storage.read(LOG) or b"").split(b"\n")
    return [parse_json(LogEntry, line) for line in lines if line.strip()]
