"""Commands that read or change a store: history, show, promote, rollback, verify, gc, path."""

import sys
from typing import Annotated

from cyclopts import Parameter

from flows.cli import views
from flows.cli.options import (
    NOT_NEGATIVE,
    RUN_NAMES,
    JsonOption,
    RunArgument,
    StoreOption,
    WhyOption,
    open_existing_store,
)
from flows.cli.printing import print_result, with_spinner
from tasks.core.config import store_location
from tasks.core.store.current import promote_run, roll_back
from tasks.core.store.gc import collect_garbage
from tasks.core.store.history import find_run, payload_path
from tasks.core.store.history import history as list_runs
from tasks.core.store.lineage import find_lineage
from tasks.core.store.opening import open_without_repair
from tasks.core.store.runs import run_ids
from tasks.core.store.verify import verify as check_store


def history(
    *,
    limit: Annotated[int | None, Parameter(help="List only the newest LIMIT runs.", validator=NOT_NEGATIVE)] = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """List the runs, newest first."""
    opened = open_existing_store(store)
    ids, rows = run_ids(opened), list_runs(opened)
    if unreadable := set(ids) - {row.run for row in rows}:
        print(f"unreadable run records, not listed: {len(unreadable)}; see `cifar verify`", file=sys.stderr)
    print_result(rows[:limit], views.print_history, json=json)


def show(
    what: Annotated[str, Parameter(help=f"NAME/VERSION of an artifact, or {RUN_NAMES}.")],
    /,
    *,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show the record of a run, or the manifest and lineage of an artifact's version."""
    opened = open_existing_store(store)
    if "/" in what:
        print_result(find_lineage(opened, what), views.print_version, json=json)
    else:
        print_result(find_run(opened, what), views.print_run, json=json)


def promote(run: RunArgument, /, *, why: WhyOption = "requested by `cifar promote`", store: StoreOption = None) -> None:
    """Make a completed run the current run, whatever the promotion gate decided."""
    opened = open_existing_store(store)
    promote_run(opened, find_run(opened, run), why)
    views.print_current(opened)


def rollback(*, why: WhyOption, store: StoreOption = None) -> None:
    """Make the previous run the current run again."""
    opened = open_existing_store(store)
    roll_back(opened, find_run(opened, "previous"), why)
    views.print_current(opened)


def verify(*, store: StoreOption = None, json: JsonOption = False) -> int:
    """Hash every file of the store again and list the problems; exit code 1 if there are any."""
    opened = open_without_repair(store_location(store), must_exist=True)  # a repair would hide problems
    findings = [each for piece in with_spinner(check_store(opened)) for each in piece]
    print_result(findings, views.print_findings, json=json)
    return int(any(not finding.known for finding in findings))


def gc(
    *,
    keep: Annotated[int, Parameter(help="The newest KEEP runs keep their artifacts.", validator=NOT_NEGATIVE)],
    dry_run: Annotated[bool, Parameter(help="Only print what would be removed.", negative="")] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Remove the artifacts of old runs that were never promoted."""
    plan = collect_garbage(open_existing_store(store), keep, dry_run=dry_run)
    print_result(plan, lambda plan: views.print_garbage(plan, dry_run=dry_run), json=json)


def path(
    artifact: Annotated[str, Parameter(help="raw, dataset, data_checks, weights, predictions, per_class or report.")],
    /,
    *,
    run: Annotated[str, Parameter(help=f"The run: {RUN_NAMES}.")] = "current",
    store: StoreOption = None,
) -> None:
    """Check an artifact of a run and print its path: its table or only file, or the folder of its files."""
    print(payload_path(open_existing_store(store), run, artifact))
