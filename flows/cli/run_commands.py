"""Commands that run a flow or use a trained network: run, predict, compare, export, recipes."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flows.cli import views
from flows.cli.options import RUN_NAMES, JsonOption, ModelOption, RunArgument, StoreOption, open_existing_store
from flows.cli.printing import print_result
from flows.parameters import as_parameters
from tasks.core.config import ExportFormat, Settings, store_location
from tasks.core.inference.image_files import find_images
from tasks.core.recipes import RECIPES
from tasks.core.reports.output_files import comparison_files, prediction_files
from tasks.core.store import Store, open_store
from tasks.core.store.history import find_artifact
from tasks.core.store.opening import NoStore

if TYPE_CHECKING:
    from tasks.core.reports.compare.summary import Summary


def run(
    *,
    explain: Annotated[
        bool, Parameter(help="Only print what would be reused, what would be rebuilt, and why.", negative="")
    ] = False,
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),  # noqa: B008 - frozen
) -> None:
    """Run the pipeline: download, normalize and cache, train, evaluate, report."""
    if explain:
        _explain(settings)
    else:
        _run_flow("cifar_flow", **settings.model_dump())


def _explain(settings: Settings) -> None:
    from tasks.core.explain import explain

    with TemporaryDirectory() as empty:
        try:
            store = open_existing_store(settings.store)
        except NoStore as error:
            print(f"{error.problem}; the run would create it", file=sys.stderr)
            store = open_store(empty)
        for line in explain(store, settings):
            print(line)


def _run_flow(name: str, *arguments: Any, **parameters: Any) -> None:
    """Run a flow; a Prefect server starts while the flow's heavy imports load."""
    from flows.local_server import prefect_server

    with prefect_server() as wait_until_ready:
        flow = getattr(import_module(f"flows.{name}"), name)
        wait_until_ready()
        flow(*arguments, **parameters)


def predict(
    images: Annotated[
        list[str], Parameter(help="Image files (PNG, JPEG, WebP), folders of them, or globs.", negative="")
    ],
    /,
    *,
    run: Annotated[str, Parameter(help=f"The run whose network predicts: {RUN_NAMES}.")] = "current",
    output: Annotated[str, Parameter(help="The folder for the tables and the gallery.")] = "predictions",
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    model: ModelOption = None,
    store: StoreOption = None,
) -> None:
    """Classify your own images with the network of a run."""
    names, [folder] = as_parameters("images", images), as_parameters("--output", [output])
    prediction_files(Path(folder))
    find_images(names, log_empty=False)
    find_artifact(open_existing_store(store), run, "weights")
    _run_flow("predict_flow", names, folder, run, device, model, store_location(store))


def compare(
    first: RunArgument,
    second: RunArgument,
    /,
    *others: RunArgument,
    html: Annotated[
        str | None, Parameter(help="Also write a page to this file, and its numbers as JSON beside it.")
    ] = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Compare each run with the first one on the same test images; two runs also class by class."""
    from tasks.core.reports.compare.runs import load_runs
    from tasks.core.reports.compare.summary import summarize

    names, opened = [first, second, *others], open_existing_store(store)
    summary = _write_comparison(opened, names, html, store) if html else summarize(load_runs(opened, names))
    if others:
        print_result(summary, views.print_summary, json=json)
    else:
        letters = [run.run for run in summary.runs]
        print_result(summary.changes[0].comparison, lambda each: views.print_comparison(each, *letters), json=json)


def _write_comparison(opened: Store, names: Sequence[str], html: str, store: str | None) -> "Summary":
    from tasks.core.reports.compare.runs import runs_on_same_images
    from tasks.core.reports.compare.summary import Summary

    [page] = as_parameters("--html", [html])
    _, json_file = comparison_files(Path(page))
    runs = [record.run for record in runs_on_same_images(opened, names)]
    _run_flow("compare_flow", runs, page, store_location(store))
    return Summary.model_validate_json(json_file.read_text(encoding="utf-8"))


def export(
    run: RunArgument,
    /,
    *,
    format: Annotated[ExportFormat, Parameter(help="The format of the file.")],
    output: Annotated[
        Path | None, Parameter(help="The file; by default in the current folder and named after the run.")
    ] = None,
    model: ModelOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Write the network of a run to a file for other programs; the file appears after it is verified."""
    from tasks.core.inference.export import export as export_network

    check = export_network(open_existing_store(store), run, format, output, model)
    print_result(check, views.print_export, json=json)


def recipes(*, json: JsonOption = False) -> None:
    """List the recipes with their settings."""
    print_result(list(RECIPES.values()), views.print_recipes, json=json)
