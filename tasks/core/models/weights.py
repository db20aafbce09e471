"""The weights artifact: the state_dict as the tutorial saves it, and as safetensors with its lineage."""

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
    """The recipe, seed and dataset that weights come from."""

    recipe: Recipe
    seed: int
    classes: tuple[str, ...]
    dataset: Identity

    def facts(self) -> dict[str, JsonValue]:
        """The lineage as metadata of a table."""
        facts = self.model_dump(mode="json", exclude={"classes"})
        return {**facts, "generated_images": self.dataset.is_generated}


def save_weights(folder: Path, network: nn.Module, lineage: Lineage) -> None:
    """Write `cifar_net.pth` and `weights.safetensors`."""
    # Cloned, as a tensor that is a view is saved with its whole buffer.
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    torch.save(state, folder / "cifar_net.pth")
    save_file(state, folder / "weights.safetensors", metadata={"cifar_flow": lineage.model_dump_json()})


def load_lineage(folder: Path) -> Lineage:
    """The lineage of saved weights."""
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        return Lineage.model_validate_json(file.metadata()["cifar_flow"])


def load_network(folder: Path, model: str, device: torch.device) -> nn.Module:
    """The trained network, in evaluation mode; the caller names the `model`, as data must not choose code."""
    lineage = load_lineage(folder)
    if lineage.recipe.model != model:
        got = f"those of {lineage.recipe.model}"
        raise InputError("weights", expected=f"those of model {model}", got=got, advice="give --model")
    network = build_network(model, len(lineage.classes))
    state = torch.load(folder / "cifar_net.pth", map_location=device, weights_only=True)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        got = shorten(str(error), 200, placeholder=" …")
        raise InputError(f"model {model}", expected="the trained network", got=got, advice="restore its code") from None
    return network.to(device).to(memory_format=layout_for(device, lineage.recipe.precision)).eval()
