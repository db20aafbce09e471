"""Exports the network of a run to a file for other programs, and verifies the file before it appears."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tasks.core.config import ExportFormat, Normalization
from tasks.core.data.dataset import Dataset, Images, load_dataset
from tasks.core.data.identity import Identity
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.evaluation.evaluate import predict_probabilities
from tasks.core.frozen_model import FrozenModel
from tasks.core.inference.classifier import trusted_model
from tasks.core.inference.export_formats import FORMATS, PixelClassifier, Predict
from tasks.core.models.weights import load_lineage, load_network
from tasks.core.recipes import TestAugmentation
from tasks.core.reports.output_files import check_output
from tasks.core.runtime import files
from tasks.core.runtime.environment import library_version
from tasks.core.runtime.parquet import read_table
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.history import find_artifact, find_run

VERIFIED_IMAGES = 1_000
TOLERANCE = 1e-4  # other libraries add floats in another order
STORED = "the stored predictions of the run"
RECOMPUTED = "new predictions on a CPU without test augmentation"
CPU = torch.device("cpu")


class Description(FrozenModel):
    """The metadata of an exported file."""

    run: str
    model: str
    weights: ArtifactRef
    dataset: Identity
    generated_images: bool
    classes: tuple[str, ...]
    normalization: Normalization


class ExportCheck(FrozenModel):
    """The verification of an exported file: its largest difference in probability from the reference."""

    file: str
    sha256: str
    format: ExportFormat
    exported: Description
    reference: str
    images: int
    largest_difference: float
    tolerance: float
    versions: dict[str, str]


@dataclass(frozen=True)
class TrainedNetwork:
    """The network of a run, and the probabilities [N, classes] that an exported file must predict for `images`."""

    classifier: PixelClassifier
    description: Description
    images: Images
    reference: str
    expected: NDArray[np.float32]


def export(
    store: Store, run: str, export_format: ExportFormat, output: Path | None = None, model: str | None = None
) -> ExportCheck:
    """Export the network of a run to `output`; an existing file is replaced on success.

    The check is written next to the file. A custom network must be named by `model`: data must not choose code.

    Raises:
        EnvironmentFailure: The file predicts something else than the run.
    """
    file_format = FORMATS[export_format]
    _require_installed(file_format.libraries)
    run = find_run(store, run).run
    target, check_file = _output_files(output or Path(f"{run}{file_format.suffix}"))
    trained = _load_trained(store, run, model)
    with files.atomic_write(target) as file:
        file.write_bytes(file_format.to_bytes(trained.classifier, trained.description.model_dump_json()))
        check = ExportCheck(
            file=target.name,
            sha256=files.sha256_of(file),
            format=export_format,
            exported=trained.description,
            reference=trained.reference,
            images=len(trained.images),
            largest_difference=_verify(file_format.load(file, trained.classifier), trained),
            tolerance=TOLERANCE,
            versions={name: library_version(name) for name in ("cifar-flow", "torch", *file_format.libraries)},
        )
        files.write_bytes(check_file, files.pretty_json(check.model_dump(mode="json")))
    return check


def _require_installed(libraries: Sequence[str]) -> None:
    if missing := [name for name in libraries if not find_spec(name)]:
        raise InputError(
            "--format",
            expected=f"{', '.join(missing)} to be installed",
            advice="install the extra of cifar-flow: pip install '.[export]'",
        )


def _output_files(output: Path) -> tuple[Path, Path]:
    target = output.absolute()
    check_file = target.with_name(f"{target.name}.check.json")
    check_output(target, check_file)
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise InputError(
            "--output", expected="a writable folder", got=str(target.parent), advice="give another --output"
        )
    return target, check_file


def _load_trained(store: Store, run: str, model: str | None) -> TrainedNetwork:
    """Load the network of a run in float32 on the CPU, with its first test images."""
    refs = {name: find_artifact(store, run, name) for name in ("dataset", "weights", "predictions")}
    weights, whole = store.open(refs["weights"]), load_dataset(store.open(refs["dataset"]))
    images, labels = np.array(whole.test_images[:VERIFIED_IMAGES]), whole.test_labels[:VERIFIED_IMAGES]
    dataset = replace(whole, test_images=images, test_labels=labels)
    recipe = load_lineage(weights).recipe
    network = load_network(weights, trusted_model(recipe.model, model), CPU)
    reference, expected = _expected(store, refs["predictions"], network, dataset, recipe.test_augmentation)
    description = Description(
        run=run,
        model=recipe.model,
        weights=refs["weights"],
        dataset=dataset.identity,
        generated_images=dataset.identity.is_generated,
        classes=dataset.classes,
        normalization=dataset.normalization,
    )
    classifier = PixelClassifier(network, dataset.normalization)
    return TrainedNetwork(classifier, description, images, reference, expected)


def _expected(
    store: Store, predictions: ArtifactRef, network: nn.Module, dataset: Dataset, augmentation: TestAugmentation
) -> tuple[str, NDArray[np.float32]]:
    """The reference and its probabilities: the stored ones if a CPU computed them without test augmentation.

    Raises:
        InputError: The network's code now predicts something else than in the run. This is not checked for GPUs.
    """
    table = read_table(store.open(predictions) / "predictions.parquet").head(VERIFIED_IMAGES)
    manifest = store.manifest(predictions.name, predictions.version)
    if manifest and manifest.key.environment["device"] == CPU.type:
        stored = table[[f"prob_{name}" for name in dataset.classes]].to_numpy(np.float32)
        if not np.allclose(_predict(network, dataset, augmentation), stored, rtol=0, atol=TOLERANCE):
            raise InputError("model: the network predicts something else than in the run", advice="restore its code")
        if augmentation == "none":
            return STORED, stored
    return RECOMPUTED, _predict(network, dataset)


def _predict(network: nn.Module, dataset: Dataset, augmentation: TestAugmentation = "none") -> NDArray[np.float32]:
    images = torch.from_numpy(dataset.test_images)
    return predict_probabilities(network, images, dataset.normalization, augmentation)


def _verify(predict: Predict, trained: TrainedNetwork) -> float:
    """Return the largest difference of the file's probabilities from the expected ones, if it is small enough."""
    batches = np.split(trained.images, [1])  # one image, then the others: a batch may have any size
    probabilities = np.concatenate([predict(batch) for batch in batches if len(batch)])
    difference = float(np.abs(probabilities - trained.expected).max())
    if not difference <= TOLERANCE:  # also refuses NaN
        raise EnvironmentFailure(
            "export",
            expected=f"probabilities within {TOLERANCE:g} of {trained.reference} on {len(probabilities):,} test images",
            got=f"a difference of {difference:.2g}",
            advice="no file was written; the prediction for an image must not depend on the rest of its batch",
        )
    return difference
