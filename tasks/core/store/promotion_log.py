"""The log of promotions: every promotion, refusal and rollback, and what follows from them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Literal

from pydantic import ValidationError

from tasks.core.frozen_model import FrozenModel
from tasks.core.store.runs import RunRecord, read_records, run_ids
from tasks.core.store.storage import LOG
from tasks.core.store.store import Store


class LogEntry(FrozenModel):
    """One line of the log of promotions; a rollback names the run that it put out of its place."""

    action: Literal["promote", "refuse", "rollback"]
    run: str
    at: str
    who: str
    why: str
    instead_of: str | None = None


def read_log(store: Store) -> list[LogEntry]:
    """The log of promotions, oldest first, without the lines that a power cut tore."""
    return [entry for entry in _lines(store) if entry]


def append_entry(store: Store, entry: LogEntry) -> None:
    store.append(LOG, entry.model_dump(mode="json", exclude_none=True))


def last_promotion(store: Store) -> LogEntry | None:
    """What made the current run the current one; None where there is none, or a torn line may have told of a later."""
    for entry in reversed(_lines(store)):
        if entry is None or entry.action != "refuse":
            return entry
    return None


def has_promotion(store: Store) -> bool:
    """Whether any run was the current one once, by the log or, where that is lost, by its own record."""
    return bool(standing_runs(read_log(store))) or any(record.was_promoted for record in read_records(store))


def standing_runs(log: Sequence[LogEntry]) -> list[str]:
    """The runs that were promoted and not rolled back since, in that order; the last one is the current one."""
    standing: list[str] = []
    for entry in log:
        if entry.action != "refuse":
            standing = [run for run in standing if run not in (entry.run, entry.instead_of)]
            standing.append(entry.run)
    return standing


def rollback_reasons(log: Sequence[LogEntry]) -> dict[str, str]:
    """The runs that were rolled back and not promoted since, and why."""
    reasons: dict[str, str] = {}
    for entry in log:
        if entry.action == "promote":
            reasons.pop(entry.run, None)
        if entry.action == "rollback" and entry.instead_of:
            reasons[entry.instead_of] = entry.why
    return reasons


def promoted_runs(log: Iterable[LogEntry]) -> set[str]:
    """Every run that was ever promoted, those included that were rolled back since."""
    return {entry.run for entry in log if entry.action != "refuse"}


def find_gaps(store: Store, records: Iterable[RunRecord]) -> Iterator[tuple[str, str]]:
    """What the log and the runs on record lack of each other, in words, and what to do about it."""
    lines = _lines(store)
    if torn := lines.count(None):
        yield f"{LOG}: {torn} lines cannot be read", "restore it from a backup, or delete them"
    promoted = promoted_runs(entry for entry in lines if entry)
    for run in sorted(promoted - set(run_ids(store))):
        yield f"run {run}: it was promoted, and has no record", f"restore runs/ from a backup, or delete it in {LOG}"
    lost = [record.run for record in records if record.was_promoted and record.run not in promoted]
    if lost:
        wrong = f"{LOG}: it lacks {len(lost)} of the runs that were promoted by their records, as {lost[-1]}"
        yield wrong, "restore it from a backup, or `cifar promote` them again"


def _lines(store: Store) -> list[LogEntry | None]:
    lines = (store.storage.read(LOG) or b"").split(b"\n")
    return [_entry(line) for line in lines if line.strip()]


def _entry(line: bytes) -> LogEntry | None:
    with suppress(ValidationError):
        return LogEntry.model_validate_json(line)
    return None
