"""Predict: answers for images of one's own, in files and in Prefect's UI."""

from collections.abc import Sequence
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.core.inference.batch import predict_files
from tasks.core.inference.classifier import load_classifier
from tasks.core.inference.gallery import Overview
from tasks.core.inference.image_files import find_images
from tasks.core.runtime.device import choose_device, describe_device
from tasks.core.store import Store
from tasks.ui import best_effort
from tasks.ui_progress import ui_progress


@task(task_run_name="predict by run {run}", cache_policy=NO_CACHE)
def predict(
    store: Store, run: str, images: Sequence[str], output: Path, device: str, model: str | None
) -> dict[str, int]:
    """Classify images by the network of a run; returns how many there are of each class."""
    logger = get_run_logger()
    chosen = choose_device(device)
    paths = find_images(images, logger.warning)
    classifier = load_classifier(store, run, chosen, model)
    logger.info(f"run {classifier.run} predicts on {describe_device(chosen)}; images: {len(paths):,}")
    if classifier.changed_code:
        parts = ", ".join(classifier.changed_code)
        logger.warning(f"the network's code is not what it was when it was trained ({parts}): it may answer otherwise")
    with ui_progress(logger, "predicting") as show:
        overview = predict_files(output, paths, classifier, show)
    for line in overview.lines():
        logger.info(line)
    logger.info(f"written: {output / 'predictions.parquet'}, unreadable.parquet and gallery.html")
    with best_effort(logger, "these predictions"):
        _show_in_ui(overview)
    return dict(overview.counts)


def _show_in_ui(overview: Overview) -> None:
    table = [{"class": name, "images": count} for name, count in overview.counts.most_common()]
    create_table_artifact(table, key="predicted-classes", description="How many images were taken for each class")
    create_markdown_artifact(overview.markdown(), key="predictions", description="What the images were taken for")
