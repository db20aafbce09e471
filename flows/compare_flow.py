"""Two or more runs on the same images, side by side on one page.

python flows/compare_flow.py --help
"""

if __name__ == "__main__":  # The command line answers --help and wrong values before Prefect and torch are imported.
    from flows.cli.main import start

    start("compare-page")

from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
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
    """Compare runs on the same images, each with the first; leave a page. Returns the verdicts in words.

    Args:
        runs: Each a run's id or how it begins, current, or previous.
        output: The absolute path of the page, which ends in .html; its numbers go beside it, as .json.
        store: The store of the runs; CIFAR_FLOW_STORE or the project's artifacts folder if unset.
    """
    for name, paths in (("output", [output]), ("store", [store] if store else [])):
        check_absolute(name, paths)
    opened = open_store(store_location(store), get_run_logger().info, must_exist=True)
    return compare(opened, runs, Path(output))
