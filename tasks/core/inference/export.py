"""Exports the network of a run to a file for other programs, and verifies the file before it appears."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.core.config import ExportFormat, Normalization
from tasks.core.data.dataset import Images, load_dataset
from tasks.core.data.identity import Identity
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.evaluation.evaluate import predict_probabilities
from tasks.core.frozen_model import FrozenModel
from tasks.core.inference.classifier import Classifier, load_classifier
from tasks.core.inference.export_formats import FORMATS, PixelClassifier, Predict
from tasks.core.reports.output_files import check_output
from tasks.core.runtime import files
from tasks.core.runtime.environment import library_version
from tasks.core.runtime.parquet import read_table
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.history import find_artifact, find_run

VERIFIED_IMAGES = 1_000
TOLERANCE = 1e-4  # other libraries add floats in another order
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
    trained = load_classifier(store, run, CPU, model)
    description = Description(
        run=run,
        model=trained.lineage.recipe.model,
        weights=trained.weights,
        dataset=trained.lineage.dataset,
        generated_images=trained.lineage.dataset.is_generated,
        classes=trained.lineage.classes,
        normalization=trained.normalization,
    )
    images, expected, reference = _expected_probabilities(store, trained)
    classifier = PixelClassifier(trained.network, trained.normalization)
    with files.atomic_write(target) as file:
        file.write_bytes(file_format.to_bytes(classifier, description.model_dump_json()))
        check = ExportCheck(
            file=target.name,
            sha256=files.sha256_of(file),
            format=export_format,
            exported=description,
            reference=reference,
            images=len(images),
            largest_difference=_verify(file_format.load(file, classifier), images, expected, reference),
            tolerance=TOLERANCE,
            versions={name: library_version(name) for name in ("cifar-flow", "torch", *file_format.libraries)},
        )
        files.write_bytes(check_file, files.pretty_json(check.model_dump(mode="json")))
    return check


def _require_installed(libraries: Sequence[str]) -> None:
    if missing := [name for name in libraries if not find_spec(name)]:
        advice = "install the extra of cifar-flow: pip install -e '.[export]'"
        raise InputError("--format", expected=f"{', '.join(missing)} to be installed", advice=advice)


def _output_files(output: Path) -> tuple[Path, Path]:
    target = output.absolute()
    check_file = target.with_name(f"{target.name}.check.json")
    check_output(target, check_file)
    folder = target.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError("--output", expected="a writable folder", got=str(folder), advice="give another --output")
    return target, check_file


def _expected_probabilities(store: Store, trained: Classifier) -> tuple[Images, NDArray[np.float32], str]:
    """The first test images, the probabilities that an exported file must predict for them, and their origin.

    Raises:
        InputError: The network's code now predicts something else than in the run. This is not checked for GPUs.
    """
    dataset, predictions = (find_artifact(store, trained.run, name) for name in ("dataset", "predictions"))
    images = np.array(load_dataset(store.open(dataset)).test_images[:VERIFIED_IMAGES])
    table = read_table(store.open(predictions) / "predictions.parquet").head(VERIFIED_IMAGES)
    manifest = store.manifest(predictions.name, predictions.version)
    if manifest and manifest.key.environment["device"] == CPU.type:
        stored = table[[f"prob_{name}" for name in trained.lineage.classes]].to_numpy(np.float32)
        if not np.allclose(trained.probabilities(images), stored, rtol=0, atol=TOLERANCE):
            raise InputError("model: the network predicts something else than in the run", advice="restore its code")
        if trained.lineage.recipe.test_augmentation == "none":
            return images, stored, "the stored predictions of the run"
    expected = predict_probabilities(trained.network, torch.from_numpy(images), trained.normalization)
    return images, expected, "new predictions on a CPU without test augmentation"


def _verify(predict: Predict, images: Images, expected: NDArray[np.float32], reference: str) -> float:
    """Return the largest difference of the file's probabilities from the expected ones, if it is small enough."""
    batches = np.split(images, [1])  # one image, then the others: a batch may have any size
    probabilities = np.concatenate([predict(batch) for batch in batches if len(batch)])
    difference = float(np.abs(probabilities - expected).max())
    if not difference <= TOLERANCE:  # also refuses NaN
        raise EnvironmentFailure(
            "export",
            expected=f"probabilities within {TOLERANCE:g} of {reference} on {len(probabilities):,} test images",
            got=f"a difference of {difference:.2g}",
            advice="no file was written; the prediction for an image must not depend on the rest of its batch",
        )
    return difference
