"""The `cifar` command: parsed and checked before anything heavy is imported."""

import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter
from cyclopts.validators import Number
from pydantic import ValidationError

from tasks.core.config import ExportFormat, Settings, format_validation_error, store_location
from tasks.core.errors import CifarFlowError, InputError
from tasks.core.runtime.environment import library_version

if TYPE_CHECKING:
    from tasks.core.store import Store

app = cyclopts.App(
    name="cifar",
    help="Train and evaluate an image classifier on CIFAR-10, and work with what its runs left in the store.",
    version=lambda: library_version("cifar-flow"),
    suppress_keyboard_interrupt=False,
)

StoreOption = Annotated[
    str | None,
    Parameter(help="A folder or s3://bucket/prefix; CIFAR_FLOW_STORE or the project's artifacts folder if unset."),
]
NOT_NEGATIVE = Number(gte=0)
JsonOption = Annotated[bool, Parameter(help="Print JSON, for machines.", negative="")]
RUN = "A run's id or how it begins, current, or previous."


@app.command
def run(
    *,
    explain: Annotated[
        bool, Parameter(help="Only say what would be reused, what would be made anew, and why.", negative="")
    ] = False,
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),  # noqa: B008 - frozen
) -> None:
    """Run the pipeline: download, normalize and cache, train, evaluate, report."""
    if explain:
        _explain(settings)
        return
    from flows.local_server import prefect_server

    with prefect_server() as wait_until_ready:
        from flows.cifar_flow import cifar_flow

        wait_until_ready()
        cifar_flow(**settings.model_dump())


@app.command
def predict(
    images: Annotated[
        list[str], Parameter(help="Image files (PNG, JPEG, WebP), folders of them, or globs.", negative="")
    ],
    /,
    *,
    run: Annotated[str, Parameter(help=RUN)] = "current",
    output: Annotated[str, Parameter(help="The folder for the table and the gallery.")] = "predictions",
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    model: Annotated[
        str | None, Parameter(help="The network as package.module:factory, if it is one of your own.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Classify images of your own by the network of a run; leave a table and a gallery in a folder."""
    from flows.local_server import prefect_server
    from flows.parameters import as_parameters
    from tasks.core.inference.image_files import find_images
    from tasks.core.reports.output_files import prediction_files
    from tasks.core.store.history import artifact_of

    names, [folder] = as_parameters("images", images), as_parameters("output", [output])
    prediction_files(Path(folder))  # what is mistyped is told before the heavy imports
    find_images(names, lambda _: None)
    artifact_of(_opened(store), run, "weights")
    with prefect_server() as wait_until_ready:
        from flows.predict_flow import predict_flow

        wait_until_ready()
        predict_flow(names, folder, run, device, model, store_location(store))


@app.command
def recipes(*, json: JsonOption = False) -> None:
    """List the recipes, each with its settings."""
    from flows.cli import printing
    from tasks.core.recipes import RECIPES

    printing.answer(list(RECIPES.values()), printing.recipes, json=json)


@app.command
def history(
    *,
    limit: Annotated[int | None, Parameter(help="Only the newest so many.", validator=NOT_NEGATIVE)] = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """List the runs, newest first, and what each one came to."""
    from flows.cli import printing
    from tasks.core.store.history import history as rows_of
    from tasks.core.store.runs import run_ids

    opened = _opened(store)
    there = run_ids(opened)
    rows = rows_of(opened)
    if unreadable := set(there) - {row.run for row in rows}:
        printing.note(f"records that cannot be read, and are not listed: {len(unreadable)}; see `cifar verify`")
    printing.answer(rows[:limit], printing.history, json=json)


@app.command
def show(
    what: Annotated[str, Parameter(help=f"NAME/VERSION of an artifact, or a run. {RUN}")],
    /,
    *,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show a run's record, or a version's manifest and its lineage up and down."""
    from flows.cli import printing
    from tasks.core.store.history import find_run
    from tasks.core.store.lineage import find_lineage

    opened = _opened(store)
    if "/" in what:
        printing.answer(find_lineage(opened, what), printing.version, json=json)
    else:
        printing.answer(find_run(opened, what), printing.run, json=json)


@app.command
def compare(
    first: Annotated[str, Parameter(help=RUN)],
    second: Annotated[str, Parameter(help=RUN)],
    /,
    *others: Annotated[str, Parameter(help=RUN)],
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Compare two runs on the same images, over all and by class; or each of several runs with the first one."""
    from flows.cli import printing
    from tasks.core.reading import compare_runs
    from tasks.core.store.history import find_run

    opened = _opened(store)
    if others:
        from tasks.core.reports.compare.runs import load_runs
        from tasks.core.reports.compare.summary import summarize

        printing.answer(summarize(load_runs(opened, [first, second, *others])), printing.comparisons, json=json)
        return
    runs = [find_run(opened, name).run for name in (first, second)]
    printing.answer(compare_runs(opened, *runs), lambda found: printing.comparison(found, *runs), json=json)


@app.command
def compare_page(
    first: Annotated[str, Parameter(help=RUN)],
    second: Annotated[str, Parameter(help=RUN)],
    /,
    *others: Annotated[str, Parameter(help=RUN)],
    output: Annotated[str, Parameter(help="The page; its numbers go beside it, as .json.")] = "comparison.html",
    store: StoreOption = None,
) -> None:
    """Compare runs on the same images on one page: what differs, which classes moved, which images flipped."""
    from flows.local_server import prefect_server
    from flows.parameters import as_parameters
    from tasks.core.reports.compare.runs import runs_on_same_images
    from tasks.core.reports.output_files import numbers_file

    [page] = as_parameters("output", [output])
    numbers_file(Path(page))  # what is mistyped is told before the heavy imports
    runs = [record.run for record in runs_on_same_images(_opened(store), [first, second, *others])]
    with prefect_server() as wait_until_ready:
        from flows.compare_flow import compare_flow

        wait_until_ready()
        compare_flow(runs, page, store_location(store))


@app.command
def promote(
    run: Annotated[str, Parameter(help=RUN)],
    /,
    *,
    why: Annotated[str, Parameter(help="The reason, for the log of promotions.")] = "asked for by `cifar promote`",
    store: StoreOption = None,
) -> None:
    """Make a finished run the current one, whatever the gate said."""
    from flows.cli import printing
    from tasks.core.store.current import promote_run
    from tasks.core.store.history import find_run

    opened = _opened(store)
    promote_run(opened, find_run(opened, run), why, printing.note)
    printing.current(opened)


@app.command
def rollback(
    *,
    why: Annotated[str, Parameter(help="The reason, for the log of promotions.")],
    store: StoreOption = None,
) -> None:
    """Make the run current again that was current before; the one that is so now is no longer in good standing."""
    from flows.cli import printing
    from tasks.core.store.current import roll_back
    from tasks.core.store.history import find_run

    opened = _opened(store)
    roll_back(opened, find_run(opened, "previous"), why, printing.note)
    printing.current(opened)


@app.command
def verify(*, store: StoreOption = None, json: JsonOption = False) -> int:
    """Hash everything in the store again; exit code 1 and a list where something is wrong."""
    from flows.cli import printing
    from tasks.core.store.opening import open_without_repair
    from tasks.core.store.verify import verify as pieces_of

    # Opening it otherwise would put things right.
    with_actual_status = open_without_repair(store_location(store), printing.note, must_exist=True)
    findings = printing.findings_of(pieces_of(with_actual_status))
    printing.answer(findings, printing.findings, json=json)
    return int(any(not finding.known for finding in findings))


@app.command
def gc(
    *,
    keep: Annotated[int, Parameter(help="How many of the newest runs keep their artifacts.", validator=NOT_NEGATIVE)],
    dry_run: Annotated[bool, Parameter(help="Only say what would be removed.", negative="")] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Remove the artifacts of old runs; never what a promoted run or one of the newest is made of."""
    from flows.cli import printing
    from tasks.core.store.gc import collect_garbage

    plan = collect_garbage(_opened(store), keep, printing.note, dry_run=dry_run)
    printing.answer(plan, lambda found: printing.garbage(found, dry_run=dry_run), json=json)


@app.command
def path(
    artifact: Annotated[str, Parameter(help="per_class, predictions, weights, report, dataset, data_checks or raw.")],
    /,
    *,
    run: Annotated[str, Parameter(help=RUN)] = "current",
    store: StoreOption = None,
) -> None:
    """Print where the checked files of a run's artifact are: its table or only file, or the folder with its files."""
    from tasks.core.store.history import payload_of

    print(payload_of(_opened(store), run, artifact))


@app.command
def export(
    run: Annotated[str, Parameter(help=RUN)],
    /,
    *,
    format: Annotated[ExportFormat, Parameter(help="What other programs run the file with.")],
    output: Annotated[
        Path | None, Parameter(help="The file; in the current folder, and named after the run, if unset.")
    ] = None,
    model: Annotated[
        str | None, Parameter(help="The run's package.module:factory, to have that code run, if it is one's own.")
    ] = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Write a run's network to a file for other programs, once it has answered as the run did."""
    from flows.cli import printing
    from tasks.core.inference.export import export as exported

    printing.answer(exported(_opened(store), run, format, output, model), printing.export, json=json)


@app.command
def doctor(*, store: StoreOption = None, json: JsonOption = False) -> int:
    """Look over environment, Prefect, device, disk and store; exit code 1 if something must be done."""
    from flows.cli import printing
    from flows.cli.doctor import examine

    checks = list(examine(store_location(store)))
    printing.answer(checks, printing.checks, json=json)
    return int(any(check.state == "bad" for check in checks))


def _opened(store: str | None) -> "Store":
    from flows.cli import printing
    from tasks.core.store import open_store

    return open_store(store_location(store), printing.note, must_exist=True)


def _explain(settings: Settings) -> None:
    from flows.cli import printing
    from tasks.core.explanation import explain
    from tasks.core.store import open_store
    from tasks.core.store.opening import NoStore

    with TemporaryDirectory() as empty:
        try:
            store = _opened(settings.store)
        except NoStore:
            printing.note(f"store {store_location(settings.store)}: there is none yet; the run would make it")
            store = open_store(empty)
        for line in explain(store, settings, printing.note):
            print(line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 2 for the user's input, 1 for the world."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # where a terminal's encoding lacks a letter
    try:
        exit_code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CifarFlowError as error:
        return _failed(str(error), error.exit_code)
    except cyclopts.CycloptsError as error:
        reason = (
            format_validation_error(error.__cause__) if isinstance(error.__cause__, ValidationError) else str(error)
        )
        sentence = reason if reason.endswith("...") else reason.removesuffix(".")
        return _failed(f"{sentence}; see --help", InputError.exit_code)
    except BrokenPipeError:  # whoever reads, as `head` does, has read enough
        _print_no_more()
        return 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
            raise
        _print_no_more()
        return _failed(f"output: {error.strerror}; give it another place", 1)
    except KeyboardInterrupt:
        return _failed("interrupted; run the same command again to go on", 130)
    return exit_code or 0


def _print_no_more() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(message: str, exit_code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return exit_code
