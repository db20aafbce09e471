"""More data, a clean process for each stage: python benchmarks/grown.py FUNCTION '{"argument": value}'."""

import io
import pickle
import resource
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ours import recipe_with, timed_training
from processes import answer

from tasks.core.config import Normalization
from tasks.core.data.archive import Batch, read_archive
from tasks.core.data.dataset import build_dataset, load_dataset
from tasks.core.evaluation.evaluate import build_per_class, build_predictions
from tasks.core.recipes import RECIPES
from tasks.core.runtime.device import choose_hardware
from tasks.core.training.trainer import Training

FOLDER = "cifar-10-batches-py"
MEMBERS = 5  # of training images, in the official archive
A_BATCH = 500
QUICK = {"epochs": 1, "batch_size": A_BATCH, "learning_rate": 0.01}


def repeat(archive: str, times: int | None, into: str) -> None:
    """An archive in the official layout of the same images so many times, or of a batch; its classes are its own."""
    found = read_archive(Path(archive))
    if times is None:
        found, times = replace(found, train_batches=(_few(found.train),), test=_few(found.test)), 1
    parts = [
        Batch(*part)
        for part in zip(
            np.array_split(found.train.images, MEMBERS), np.array_split(found.train.labels, MEMBERS), strict=True
        )
    ]
    names = [f"class {number}" for number in range(len(found.classes))]
    with tarfile.open(into, "w") as tar:  # not compressed: that takes minutes, and tells nothing
        _add(tar, "batches.meta", {"label_names": names})
        for number in range(times * MEMBERS):
            _add(tar, f"data_batch_{number + 1}", _content(parts[number % MEMBERS], 1))
        _add(tar, "test_batch", _content(found.test, times))


def _few(batch: Batch) -> Batch:
    return Batch(batch.images[:A_BATCH], batch.labels[:A_BATCH])


def _content(batch: Batch, times: int) -> dict[str, object]:
    rows = batch.images.reshape(len(batch.images), -1)
    return {"labels": batch.labels.tolist() * times, "data": np.tile(rows, (times, 1))}


def _add(tar: tarfile.TarFile, name: str, content: dict[str, object]) -> None:
    payload = pickle.dumps(content, protocol=4)
    info = tarfile.TarInfo(f"{FOLDER}/{name}")
    info.size = len(payload)
    tar.addfile(info, io.BytesIO(payload))


def repeat_test_images(dataset: str, images: int, into: str) -> None:
    """Our arrays with so many test images, the same ones over and over, written part by part."""
    folder, found = Path(into), load_dataset(Path(dataset))
    folder.mkdir()
    for path in Path(dataset).iterdir():
        if not path.name.startswith("test_"):
            (folder / path.name).symlink_to(path.resolve())
    for name, part in (("test_images", found.test_images), ("test_labels", found.test_labels)):
        array = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", part.dtype, (images, *part.shape[1:]))
        for start in range(0, images, len(part)):
            array[start : start + len(part)] = part[: images - start]


def evaluating(dataset: str, weights: str) -> dict[str, float]:
    """Seconds of predicting and summing up, and this process's peak memory."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        started = time.perf_counter()
        build_predictions(folder, Path(dataset), Path(weights), RECIPES["tutorial"], torch.device("cpu"), {})
        predicted = time.perf_counter()
        build_per_class(folder, folder, {})
        summarized = time.perf_counter()
    return {"predict_s": predicted - started, "summarize_s": summarized - predicted, "peak_bytes": peak_bytes()}


def stage(name: str, archive: str, folder: str) -> dict[str, float]:
    """Seconds of a stage, this process's peak memory, and the bytes of the arrays that the stage is about."""
    root = Path(folder)
    dataset, weights = root / "dataset", root / "weights"
    training = Training(recipe_with("tutorial", QUICK), 1, choose_hardware("cpu"))

    def normalize() -> None:
        dataset.mkdir()
        build_dataset(dataset, Path(archive), Normalization())

    def train() -> None:
        weights.mkdir()
        timed_training(dataset, training, weights)

    def evaluate() -> None:
        build_predictions(root, dataset, weights, training.recipe, torch.device("cpu"), {})

    stages: dict[str, Callable[[], None]] = {each.__name__: each for each in (normalize, train, evaluate)}
    started = time.perf_counter()
    stages[name]()
    seconds, peak = time.perf_counter() - started, peak_bytes()
    return {"seconds": seconds, "peak_bytes": peak, "held_bytes": held_bytes(name, dataset)}


def peak_bytes() -> int:
    """The most memory that this process ever had resident."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def held_bytes(name: str, dataset: Path) -> int:
    """What a stage must hold: all arrays, those trained on, or those tested on."""
    parts = {"normalize": "*.npy", "train": "train_*.npy", "evaluate": "test_*.npy"}
    return sum(path.stat().st_size for path in dataset.glob(parts[name])) if name in parts else 0


if __name__ == "__main__":
    answer(repeat, repeat_test_images, evaluating, stage)
