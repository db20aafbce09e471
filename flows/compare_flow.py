"""Two or more runs on the same images, side by side on one page.

python flows/compare_flow.py previous current --html comparison.html
"""

if __name__ == "__main__":  # The command line answers --help and wrong values before Prefect and torch are imported.
    import runpy
    import sys

    sys.argv.insert(1, "compare")
    runpy.run_module("flows.cli", run_name="__main__")

from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.parameters import check_absolute
from tasks.compare import compare
from tasks.core.config import store_location
from tasks.core.store import open_store


@flow(name="compare", flow_run_name="compare")
def compare_flow(
    runs: Annotated[list[str], Field(min_length=2, max_length=26)],
    output: str,
    store: str | None = None,
) -> str:
    """Compare each run with the first one on the same images; write a page. Returns the verdicts in words.

    Args:
        runs: Run ids or beginnings of them, current, or previous.
        output: Absolute path of the page, which ends in .html; its numbers are written beside it as .json.
        store: The store of the runs; by default CIFAR_FLOW_STORE or the project's artifacts folder.
    """
    for name, paths in (("output", [output]), ("store", [store] if store else [])):
        check_absolute(name, paths)
    return compare(open_store(store_location(store), must_exist=True), runs, Path(output))
