"""The weights files: the tutorial's state_dict, readable by the tutorial's network, and no code."""

import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as the tutorial has it
from safetensors.torch import load_file
from tiny import CLASSES, tiny_dataset
from torch import Tensor, nn

from tasks.core.data.dataset import Dataset
from tasks.core.errors import InputError
from tasks.core.models.factory import init_network
from tasks.core.models.tutorial_net import Net
from tasks.core.models.weights import Lineage, load_lineage, load_network, save_weights
from tasks.core.recipes import RECIPES

CPU = torch.device("cpu")
TUTORIAL = RECIPES["tutorial"]
NET = TUTORIAL.model


class TutorialNet(nn.Module):
    """The network as the tutorial prints it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)  # type: ignore[no-any-return]


def lineage_of(dataset: Dataset, seed: int = 1) -> Lineage:
    return Lineage(recipe=TUTORIAL, seed=seed, classes=dataset.classes, dataset=dataset.identity)


def some_inputs() -> Tensor:
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_tutorials_state_dict_gives_the_same_logits(tmp_path: Path) -> None:
    tutorial = TutorialNet()
    torch.save(tutorial.state_dict(), tmp_path / "cifar_net.pth")
    ours = Net()
    ours.load_state_dict(torch.load(tmp_path / "cifar_net.pth"))
    assert torch.equal(ours(some_inputs()), tutorial(some_inputs()))


def test_the_tutorials_network_loads_our_weights(tmp_path: Path) -> None:
    network = init_network(NET, 10, seed=3)
    save_weights(tmp_path, network, lineage_of(tiny_dataset([f"class {n}" for n in range(10)])))
    tutorial = TutorialNet()
    tutorial.load_state_dict(torch.load(tmp_path / "cifar_net.pth"))
    assert torch.equal(tutorial(some_inputs()), network(some_inputs()))


def test_both_weights_files_have_the_same_tensors(tmp_path: Path) -> None:
    network = init_network(NET, len(CLASSES), seed=3)
    save_weights(tmp_path, network, lineage_of(tiny_dataset()))
    pth, safe = torch.load(tmp_path / "cifar_net.pth"), load_file(tmp_path / "weights.safetensors")
    assert pth.keys() == safe.keys() == network.state_dict().keys()
    assert all(torch.equal(pth[name], safe[name]) for name in pth)


def test_the_saved_network_loads_in_evaluation_mode(tmp_path: Path) -> None:
    network = init_network(NET, len(CLASSES), seed=3)
    save_weights(tmp_path, network, lineage_of(tiny_dataset()))
    loaded = load_network(tmp_path, NET, CPU)
    assert not loaded.training
    assert torch.equal(loaded(some_inputs()), network(some_inputs()))


def test_weights_have_their_lineage(tmp_path: Path) -> None:
    lineage = lineage_of(tiny_dataset(kind="generated"), seed=7)
    save_weights(tmp_path, init_network(NET, len(CLASSES), 7), lineage)
    assert load_lineage(tmp_path) == lineage
    facts = lineage.facts()
    assert (facts["seed"], facts["generated_images"]) == (7, True)
    assert facts["recipe"] == TUTORIAL.model_dump()
    assert facts["dataset"] == lineage.dataset.model_dump()


class Payload:
    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.folder,)


def test_code_in_a_weights_file_is_refused_and_does_not_run(tmp_path: Path) -> None:
    save_weights(tmp_path, init_network(NET, len(CLASSES), 1), lineage_of(tiny_dataset()))
    torch.save({"conv1.weight": Payload(tmp_path / "ran")}, tmp_path / "cifar_net.pth")
    with pytest.raises(pickle.UnpicklingError):
        load_network(tmp_path, NET, CPU)
    assert not (tmp_path / "ran").exists()


def test_weights_that_do_not_fit_the_networks_code_are_one_line(tmp_path: Path) -> None:
    save_weights(tmp_path, init_network(NET, len(CLASSES), 1), lineage_of(tiny_dataset()))
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "cifar_net.pth")
    with pytest.raises(InputError) as caught:
        load_network(tmp_path, NET, CPU)
    message = str(caught.value)
    assert message.startswith(
        f"model {NET}: expected the trained network, got Error(s) in loading state_dict for Net: "
    )
    assert message.endswith(" …; restore its code")
    assert message.isprintable()


@pytest.mark.parametrize("classes", [2, 10, 200])
def test_the_head_has_a_logit_for_each_class(classes: int) -> None:
    assert init_network(NET, classes, seed=1)(some_inputs()).shape == (5, classes)


def test_initial_weights_equal_the_tutorials_with_the_same_seed() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        tutorial = TutorialNet().state_dict()
    ours = init_network(NET, 10, seed=5).state_dict()
    assert all(torch.equal(ours[name], tutorial[name]) for name in tutorial)
    assert not torch.equal(ours["fc3.weight"], init_network(NET, 10, seed=6).state_dict()["fc3.weight"])
