"""Exporting a run's network: a file for other programs, which is there only once it has answered as the run did."""

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
from tasks.core.evaluation.evaluate import class_probabilities
from tasks.core.frozen_model import FrozenModel
from tasks.core.inference.export_formats import FORMATS, Answer, SelfContained
from tasks.core.models.weights import load_lineage, load_network
from tasks.core.recipes import OUR_MODELS, TestAugmentation
from tasks.core.reports.output_files import check_output
from tasks.core.runtime import files
from tasks.core.runtime.environment import library_version
from tasks.core.runtime.parquet import read_table
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.history import artifact_of, find_run

IMAGES_CHECKED = 1_000
TOLERANCE = 1e-4  # of a probability: other libraries add up in another order
STORED = "the run's predictions"
RECOMPUTED = "predictions made anew on a CPU without test augmentation"
CPU = torch.device("cpu")


class Description(FrozenModel):
    """What an exported file says of itself."""

    run: str
    model: str
    weights: ArtifactRef
    dataset: Identity
    generated_images: bool
    classes: tuple[str, ...]
    normalization: Normalization


class Check(FrozenModel):
    """How a file was checked: by the largest difference of any probability from the reference."""

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
class Trained:
    """What a run came to: its classifier, and the probabilities [N, classes] expected for some test images."""

    classifier: SelfContained
    description: Description
    images: Images
    reference: str
    expected: NDArray[np.float32]


def export(
    store: Store, run: str, export_format: ExportFormat, output: Path | None = None, model: str | None = None
) -> Check:
    """Write a run's network to a file, in place of one that is there; WorldError if it answers otherwise than the run.

    A network of one's own must be named by `model`, as data may not choose code. The check is kept beside the file.
    """
    made = FORMATS[export_format]
    _require(made.libraries)
    run = find_run(store, run).run
    target = _target(output or Path(f"{run}{made.suffix}"))
    trained = _trained(store, run, model)
    with files.atomic_write(target) as aside:
        aside.write_bytes(made.to_bytes(trained.classifier, trained.description.model_dump_json()))
        check = Check(
            file=target.name,
            sha256=files.sha256_of(aside),
            format=export_format,
            exported=trained.description,
            reference=trained.reference,
            images=len(trained.images),
            largest_difference=_largest_difference(made.opened(aside, trained.classifier), trained),
            tolerance=TOLERANCE,
            versions={name: library_version(name) for name in ("cifar-flow", "torch", *made.libraries)},
        )
        files.write_bytes(_check_of(target), files.pretty_json(check.model_dump(mode="json")))
    return check


def _check_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.check.json")


def _require(libraries: Sequence[str]) -> None:
    if missing := [name for name in libraries if not find_spec(name)]:
        raise InputError(
            f"export: expected {', '.join(missing)} to be installed; "
            "install cifar-flow with its extra: pip install '.[export]'"
        )


def _target(output: Path) -> Path:
    target = output.absolute()
    check_output([target, _check_of(target)])
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise InputError(f"output: expected a folder that can be written, got {target.parent}; give another --output")
    return target


def _trained(store: Store, run: str, model: str | None) -> Trained:
    """The run's network in float32 on the CPU, with its first test images."""
    refs = {name: artifact_of(store, run, name) for name in ("dataset", "weights", "predictions")}
    weights, whole = store.open(refs["weights"]), load_dataset(store.open(refs["dataset"]))
    images, labels = np.array(whole.test_images[:IMAGES_CHECKED]), whole.test_labels[:IMAGES_CHECKED]
    dataset = replace(whole, test_images=images, test_labels=labels)
    recipe = load_lineage(weights).recipe
    network = _network(weights, recipe.model, model)
    reference, expected = _expected(store, refs["predictions"], network, dataset, recipe.test_augmentation)
    description = Description(
        run=run,
        model=recipe.model,
        weights=refs["weights"],
        dataset=dataset.identity,
        generated_images=dataset.identity.generated,
        classes=dataset.classes,
        normalization=dataset.normalization,
    )
    return Trained(SelfContained(network, dataset.normalization), description, images, reference, expected)


def _network(weights: Path, trained: str, named: str | None) -> nn.Module:
    if named is None and trained not in OUR_MODELS:
        raise InputError(f"model: the run trained a network of one's own; give --model {trained} to have that code run")
    return load_network(weights, named or trained, CPU)


def _expected(
    store: Store, predictions: ArtifactRef, network: nn.Module, dataset: Dataset, augmentation: TestAugmentation
) -> tuple[str, NDArray[np.float32]]:
    """What a file is held against, and its name: what the run stored, where that was computed as the file computes.

    InputError if the network's code gives other answers now than it gave the run; not told of a run on a GPU.
    """
    table = read_table(store.open(predictions) / "predictions.parquet").head(IMAGES_CHECKED)
    manifest = store.manifest(predictions.name, predictions.version)
    if manifest and manifest.key.environment["device"] == CPU.type:
        stored = table[[f"prob_{name}" for name in dataset.classes]].to_numpy(np.float32)
        now = _answered(network, dataset, augmentation)
        if not np.allclose(now, stored, rtol=0, atol=TOLERANCE):
            raise InputError("model: the network answers otherwise than it did in the run; restore its code")
        if augmentation == "none":
            return STORED, stored
    return RECOMPUTED, _answered(network, dataset)


def _answered(network: nn.Module, dataset: Dataset, augmentation: TestAugmentation = "none") -> NDArray[np.float32]:
    images = torch.from_numpy(dataset.test_images)
    return class_probabilities(network, images, dataset.normalization, augmentation)


def _largest_difference(answer: Answer, trained: Trained) -> float:
    """How far the file's probabilities are from the expected ones at the most; WorldError if that is too far."""
    batches = np.split(trained.images, [1])  # one image alone, then the others: batches may be of any size
    answers = np.concatenate([answer(batch) for batch in batches if len(batch)])
    difference = float(np.abs(answers - trained.expected).max())
    if not difference <= TOLERANCE:  # so that NaN is too far
        raise EnvironmentFailure(
            f"export: expected probabilities within {TOLERANCE:g} of {trained.reference} on "
            f"{len(answers):,} test images, got a difference of {difference:.2g}; no file was written; "
            "make the network answer alike wherever it runs, and whatever else is in the batch"
        )
    return difference
