"""Predict: predictions for your own images, in files and in Prefect's UI."""

from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.core.inference.batch import predict_files
from tasks.core.inference.classifier import load_classifier
from tasks.core.inference.image_files import find_images
from tasks.core.inference.summary import PredictionSummary
from tasks.core.runtime.device import choose_device, describe_device
from tasks.core.runtime.logs import logger
from tasks.core.store import Store
from tasks.ui import best_effort
from tasks.ui_progress import progress


@task(task_run_name="predict by run {run}", cache_policy=NO_CACHE)
def predict(
    store: Store, run: str, images: Sequence[str], output: Path, device: str, model: str | None
) -> dict[str, int]:
    """Classify images with the network of a run; returns the number of images of each class."""
    chosen = choose_device(device)
    paths = find_images(images)
    classifier = load_classifier(store, run, chosen, model)
    logger.info(f"predict: {len(paths):,} images with run {classifier.run} on {describe_device(chosen)}")
    if classifier.changed_code:
        parts = ", ".join(classifier.changed_code)
        logger.warning(f"predict: the network's code has changed since training ({parts}); predictions may differ")
    with progress("predicting") as show:
        summary = predict_files(output, paths, classifier, show)
    for line in summary.log_lines():
        logger.info(line)
    logger.info(f"predict: wrote {output / 'predictions.parquet'}, unreadable.parquet and gallery.html")
    with best_effort("these predictions"):
        _show_in_ui(summary)
    return dict(summary.counts)


def _show_in_ui(summary: PredictionSummary) -> None:
    table = [{"class": name, "images": count} for name, count in summary.counts.most_common()]
    create_table_artifact(table, key="predicted-classes", description="Number of images predicted as each class")
    create_markdown_artifact(summary.markdown(), key="predictions", description="Summary of the predictions")
