"""Training a network of one's own: by its own code, and what goes wrong in it is one line."""

import re
from pathlib import Path

import pytest
import torch
from tiny import CLASSES, tiny_dataset
from tiny_trainings import TUTORIAL, recipe, trained, training

from tasks.core.data.dataset import save_dataset
from tasks.core.errors import InputError
from tasks.core.models.factory import init_network
from tasks.core.training.monitor import Monitor
from tasks.core.training.train import build_weights

VIEWING = {"model": "own_networks:Viewing", "batch_size": 10}


def test_a_network_that_is_derived_from_the_tutorials_is_trained_by_its_own_forward(tmp_path: Path) -> None:
    trained(tiny_dataset(), tmp_path / "weights", recipe(model="own_networks:Blind"))
    first = init_network("own_networks:Blind", len(CLASSES), seed=1).get_parameter("conv1.weight")
    moved = (torch.load(tmp_path / "weights" / "cifar_net.pth")["conv1.weight"] != first).flatten(2).any(dim=2)
    assert moved[:, 0].any()
    assert not moved[:, 1:].any()  # of the colours that it does not see


def test_layers_that_one_has_frozen_stay_as_they_are(tmp_path: Path) -> None:
    trained(tiny_dataset(), tmp_path / "weights", recipe(model="own_networks:frozen_in_part"))
    first = init_network(TUTORIAL.model, len(CLASSES), seed=1).state_dict()
    weights = torch.load(tmp_path / "weights" / "cifar_net.pth")
    assert [name for name in first if torch.equal(weights[name], first[name])] == ["conv1.weight", "conv1.bias"]


def test_a_method_of_ones_own_that_is_called_prepare_is_left_alone(tmp_path: Path) -> None:
    assert trained(tiny_dataset(), tmp_path / "weights", recipe(model="own_networks:WithPrepare"))


@pytest.mark.parametrize("network", ["frozen", "without_weights"])
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_a_network_that_training_cannot_change_is_refused(tmp_path: Path, network: str, optimizer: str) -> None:
    own = recipe(model=f"own_networks:{network}", optimizer=optimizer)
    with pytest.raises(InputError) as caught:
        trained(tiny_dataset(classes=tuple("abcdefghij")), tmp_path / "weights", own)
    assert str(caught.value) == f"model {own.model}: expected weights that training changes, got none"


def test_a_scripted_network_is_trained_like_any_other(tmp_path: Path) -> None:
    assert trained(tiny_dataset(), tmp_path / "weights", recipe(model="own_networks:scripted"))


def test_a_network_that_views_its_features_is_refused_where_images_lie_channels_last(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        trained(tiny_dataset(), tmp_path / "weights", recipe(**VIEWING, precision="auto"))
    said = str(caught.value)
    assert said.startswith("model own_networks:Viewing: expected it to take images in torch.channels_last, got: view ")
    assert said.endswith("; put flatten or reshape in the place of view, or give --precision float32")


def test_in_float32_it_is_trained_as_it_is(tmp_path: Path) -> None:
    assert trained(tiny_dataset(), tmp_path / "weights", recipe(**VIEWING, precision="float32"))


# What goes wrong


def test_what_goes_wrong_in_ones_own_network_when_it_is_trained_is_one_line_that_says_where(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        trained(tiny_dataset(), tmp_path / "weights", recipe(model="own_networks:Failing"))
    said = r"model own_networks:Failing: expected it to be trained, got KeyError: True \(.*own_networks\.py, line \d+\)"
    assert re.fullmatch(said, str(caught.value))


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("WithoutGradients", "RuntimeError: element 0 of tensors does not require grad"),
        ("Narrowed", "IndexError: Target 2 is out of bounds."),
    ],
)
def test_what_goes_wrong_by_it_elsewhere_in_a_step_is_one_line_too(tmp_path: Path, network: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        trained(tiny_dataset(), tmp_path / "weights", recipe(model=f"own_networks:{network}"))
    assert str(caught.value).startswith(f"model own_networks:{network}: expected it to be trained, got {said}")


def test_a_network_that_gives_something_else_in_training_is_one_line_too(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        trained(tiny_dataset(), tmp_path / "weights", recipe(model="own_networks:WithAuxiliaryAnswer"))
    said = "model own_networks:WithAuxiliaryAnswer: expected logits [4, classes] in training, too, got tuple; "
    assert str(caught.value).startswith(said)


def test_what_goes_wrong_elsewhere_is_not_blamed_on_it(tmp_path: Path) -> None:
    def broken(_: str) -> None:
        raise RuntimeError("the log is full")

    save_dataset(tiny_dataset(), tmp_path)
    with pytest.raises(RuntimeError, match="the log is full"):
        build_weights(tmp_path, tmp_path, training(recipe(model="own_networks:OneLayer")), Monitor(broken))


def test_a_last_batch_that_is_too_small_for_batch_norm_is_refused_with_what_to_change(tmp_path: Path) -> None:
    own = recipe(model="own_networks:normalized_features", batch_size=4)
    with pytest.raises(InputError) as caught:
        trained(tiny_dataset(train=9), tmp_path / "weights", own)
    assert str(caught.value).startswith("batch_size 4: expected two images or more in each batch")
    trained(tiny_dataset(train=10), tmp_path / "again", own)
