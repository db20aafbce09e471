"""Predictions for your own images, by the network of a run.

python flows/predict_flow.py --help
"""

if __name__ == "__main__":  # The command line answers --help and wrong values before Prefect and torch are imported.
    import runpy
    import sys

    sys.argv.insert(1, "predict")
    runpy.run_module("flows.cli", run_name="__main__")

from pathlib import Path
from typing import Annotated

from prefect import flow
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
    """Classify images; write a table and a gallery to a folder. Returns the number of images of each class.

    Args:
        images: Absolute paths or globs of image files (PNG, JPEG, WebP) or folders.
        output: Absolute path of the output folder.
        run: A run's id or the beginning of it, current, or previous.
        device: auto, cpu, cuda, cuda:N or mps; auto takes CUDA, then MPS, then the CPU.
        model: A custom network as package.module:factory; its code runs only if it is named here.
        store: The store of the run; by default CIFAR_FLOW_STORE or the project's artifacts folder.
    """
    for name, paths in (("images", images), ("output", [output]), ("store", [store] if store else [])):
        check_absolute(name, paths)
    return predict(open_store(store_location(store), must_exist=True), run, images, Path(output), device, model)
