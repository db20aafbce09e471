"""The weights artifact: the tutorial's state_dict, and the same as safetensors with what it was trained on."""

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, JsonValue
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tasks.core.config import Recipe
from tasks.core.identity import Identity
from tasks.core.model import Net


class Lineage(BaseModel):
    """What weights were trained by and on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    seed: int
    classes: tuple[str, ...]
    dataset: Identity

    def facts(self) -> dict[str, JsonValue]:
        """The same for a table's own metadata."""
        facts = self.model_dump(mode="json", exclude={"classes"})
        return {**facts, "generated_images": self.dataset.generated}


def save_weights(folder: Path, network: nn.Module, lineage: Lineage) -> None:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    torch.save(state, folder / "cifar_net.pth")
    save_file(state, folder / "weights.safetensors", metadata={"cifar_flow": lineage.model_dump_json()})


def load_lineage(folder: Path) -> Lineage:
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        return Lineage.model_validate_json(file.metadata()["cifar_flow"])


def load_network(folder: Path, device: torch.device) -> Net:
    """The trained network, ready for inference."""
    network = Net(len(load_lineage(folder).classes))
    network.load_state_dict(torch.load(folder / "cifar_net.pth", map_location=device, weights_only=True))
    return network.to(device).eval()
