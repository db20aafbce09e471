"""The weights artifact: the tutorial's state_dict, and the same as safetensors with what it was trained on."""

from pathlib import Path
from textwrap import shorten

import torch
from pydantic import JsonValue
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tasks.core.data.identity import Identity
from tasks.core.errors import InputError
from tasks.core.frozen_model import FrozenModel
from tasks.core.models.factory import build_network
from tasks.core.recipes import Recipe
from tasks.core.runtime.device import layout_for


class Lineage(FrozenModel):
    """What weights were trained by and on."""

    recipe: Recipe
    seed: int
    classes: tuple[str, ...]
    dataset: Identity

    def facts(self) -> dict[str, JsonValue]:
        """The same for a table's own metadata."""
        facts = self.model_dump(mode="json", exclude={"classes"})
        return {**facts, "generated_images": self.dataset.generated}


def save_weights(folder: Path, network: nn.Module, lineage: Lineage) -> None:
    # Cloned, as tensors that share a buffer would be written with all of it.
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    torch.save(state, folder / "cifar_net.pth")
    save_file(state, folder / "weights.safetensors", metadata={"cifar_flow": lineage.model_dump_json()})


def load_lineage(folder: Path) -> Lineage:
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        return Lineage.model_validate_json(file.metadata()["cifar_flow"])


def load_network(folder: Path, model: str, device: torch.device) -> nn.Module:
    """The trained network, ready for inference; `model` is named by the caller, as data may not choose code."""
    lineage = load_lineage(folder)
    if lineage.recipe.model != model:
        raise InputError(f"weights: expected those of model {model}, got those of {lineage.recipe.model}; give --model")
    network = build_network(model, len(lineage.classes))
    state = torch.load(folder / "cifar_net.pth", map_location=device, weights_only=True)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        found = shorten(str(error), 200, placeholder=" …")
        raise InputError(f"model {model}: expected the trained network, got: {found}; restore its code") from None
    return network.to(device).to(memory_format=layout_for(device, lineage.recipe.precision)).eval()
