"""The network of a run, with all that it needs to classify other images."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import nn

from tasks.core.config import Normalization
from tasks.core.data.dataset import Images
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.evaluation.evaluate import class_probabilities
from tasks.core.models.factory import model_code_digests
from tasks.core.models.weights import Lineage, load_lineage, load_network
from tasks.core.recipes import OUR_MODELS
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef, Manifest
from tasks.core.store.history import artifact_of, find_run


@dataclass(frozen=True)
class Classifier:
    """A trained network on a device, and how its images were normalized."""

    run: str
    weights: ArtifactRef
    lineage: Lineage
    normalization: Normalization
    network: nn.Module
    changed_code: Collection[str]  # what of the network's is not as it was when it was trained
    device: torch.device

    def probabilities(self, images_nchw: Images) -> NDArray[np.float32]:
        """The probability of each class, float32 [N, classes], for images as bytes, uint8 [N, 3, 32, 32]."""
        on_device = torch.from_numpy(images_nchw).to(self.device)
        return class_probabilities(self.network, on_device, self.normalization, self.lineage.recipe.test_augmentation)

    def facts(self) -> dict[str, JsonValue]:
        """What a table of its answers says of itself."""
        inputs: dict[str, JsonValue] = {"weights": self.weights.sha256}
        return {"run": self.run, "weights": str(self.weights), "inputs": inputs, **self.lineage.facts()}


def load_classifier(store: Store, run: str, device: torch.device, model: str | None = None) -> Classifier:
    """The classifier of a run: its weights checked byte by byte, its normalization from the dataset's manifest.

    A network that is not one of ours is only imported when the caller names it as `model`: data may not choose code.
    """
    run = find_run(store, run).run  # once: another run may become the current one meanwhile
    weights = artifact_of(store, run, "weights")
    folder = store.open(weights)
    lineage = load_lineage(folder)
    if model is None and lineage.recipe.model not in OUR_MODELS:
        raise InputError(
            f"weights: expected those of a network that comes with cifar-flow, got those of {lineage.recipe.model}; "
            "give that as --model if its code is to be trusted"
        )
    name = model or lineage.recipe.model
    network = load_network(folder, name, device)
    manifest = _manifest(store, weights)
    return Classifier(
        run=run,
        weights=weights,
        lineage=lineage,
        normalization=_normalization(store, artifact_of(store, run, "dataset")),
        network=network,
        changed_code=[
            part for part, digest in model_code_digests(name).items() if manifest.key.code.get(part) != digest
        ],
        device=device,
    )


def _normalization(store: Store, dataset: ArtifactRef) -> Normalization:
    """From the key that the version is the digest of, so that the images themselves need not be here."""
    return Normalization.model_validate(_manifest(store, dataset).key.settings["normalization"])


def _manifest(store: Store, artifact: ArtifactRef) -> Manifest:
    manifest = store.manifest(artifact.name, artifact.version)
    if manifest is None:
        raise EnvironmentFailure(f"{artifact}: expected its manifest, got none; run again to have it made anew")
    return manifest
