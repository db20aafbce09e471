"""Predictions for images of one's own, by the network of a run.

python flows/predict_flow.py --help
"""

if __name__ == "__main__":  # The command line answers --help and wrong values before Prefect and torch are imported.
    from flows.cli.main import start

    start("predict")

from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
from pydantic import Field

from flows.parameters import check_absolute
from tasks.core.config import store_location
from tasks.core.store import open_store
from tasks.predict import predict


@flow(name="predict", flow_run_name="predict by run {run}")
def predict_flow(
    images: Annotated[list[str], Field(min_length=1)],
    output: str,
    run: str = "current",
    device: str = "auto",
    model: str | None = None,
    store: str | None = None,
) -> dict[str, int]:
    """Classify images; leave a table and a gallery in a folder. Returns how many images there are of each class.

    Args:
        images: Absolute paths or globs of image files (PNG, JPEG, WebP), and of folders of such.
        output: The absolute path of the folder for predictions.parquet, unreadable.parquet and gallery.html.
        run: A run's id or how it begins, current, or previous.
        device: auto, cpu, cuda, cuda:N or mps; auto takes CUDA, then MPS, then the CPU.
        model: The network as package.module:factory, if it is one of your own, whose code is only run if you name it.
        store: The store of the run; CIFAR_FLOW_STORE or the project's artifacts folder if unset.
    """
    for name, paths in (("images", images), ("output", [output]), ("store", [store] if store else [])):
        check_absolute(name, paths)
    opened = open_store(store_location(store), get_run_logger().info, must_exist=True)
    return predict(opened, run, images, Path(output), device, model)
