"""The trained network of a run, with everything it needs to classify other images."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import nn

from tasks.core.config import Normalization
from tasks.core.data.dataset import Images
from tasks.core.errors import InputError
from tasks.core.evaluation.evaluate import predict_probabilities
from tasks.core.models.factory import model_code_digests
from tasks.core.models.weights import Lineage, load_lineage, load_network
from tasks.core.recipes import BUILT_IN_MODELS, resolve_model_alias
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.history import find_artifact, find_run


@dataclass(frozen=True)
class Classifier:
    """A trained network on a device, with the normalization of its training images."""

    run: str
    weights: ArtifactRef
    lineage: Lineage
    normalization: Normalization
    network: nn.Module
    changed_code: Collection[str]  # the parts of the network's code that changed since the training
    device: torch.device

    def probabilities(self, images_nchw: Images) -> NDArray[np.float32]:
        """Return class probabilities, float32 [N, classes], for images, uint8 [N, 3, 32, 32]."""
        on_device = torch.from_numpy(images_nchw).to(self.device)
        return predict_probabilities(self.network, on_device, self.normalization, self.lineage.recipe.test_augmentation)

    def facts(self) -> dict[str, JsonValue]:
        """Return the metadata of a table of its predictions."""
        inputs: dict[str, JsonValue] = {"weights": self.weights.sha256}
        return {"run": self.run, "weights": str(self.weights), "inputs": inputs, **self.lineage.facts()}


def load_classifier(store: Store, run: str, device: torch.device, model: str | None = None) -> Classifier:
    """Load the network of a run; its weights are checked byte by byte.

    A custom network is only imported if the caller names it as `model`: data must not choose code.
    """
    run = find_run(store, run).run  # `current` may become another run meanwhile
    weights = find_artifact(store, run, "weights")
    folder = store.open(weights)
    lineage = load_lineage(folder)
    name = trusted_model(lineage.recipe.model, model)
    # The normalization is in the manifest: the images need not exist any more.
    dataset_settings = store.manifest_of(find_artifact(store, run, "dataset")).key.settings
    trained_code = store.manifest_of(weights).key.code
    return Classifier(
        run=run,
        weights=weights,
        lineage=lineage,
        normalization=Normalization.model_validate(dataset_settings["normalization"]),
        network=load_network(folder, name, device),
        changed_code=[part for part, digest in model_code_digests(name).items() if trained_code.get(part) != digest],
        device=device,
    )


def trusted_model(trained: str, named: str | None) -> str:
    """Return the model to import: a custom network must be named by the user."""
    if named is None and trained not in BUILT_IN_MODELS:
        expected, advice = f"{trained}, the custom network of the run", f"give --model {trained} to run its code"
        raise InputError("--model", expected=expected, got="none", advice=advice)
    return resolve_model_alias(named or trained)
