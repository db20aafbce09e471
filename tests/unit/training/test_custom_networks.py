"""Training custom networks: by their own code, with errors as one line."""

import re
from pathlib import Path

import pytest
import torch
from tiny import CLASSES, save_dataset, tiny_dataset
from tiny_trainings import TUTORIAL, recipe, train, training

from tasks.core.errors import InputError
from tasks.core.models.factory import init_network
from tasks.core.training.monitor import Monitor, Progress
from tasks.core.training.train import build_weights

FAILED = "model custom_networks:{}: expected a network that trains without errors, got "
VIEWING = {"model": "custom_networks:Viewing", "batch_size": 10}


def test_a_subclass_of_the_tutorials_network_trains_by_its_own_forward(tmp_path: Path) -> None:
    train(tiny_dataset(), tmp_path / "weights", recipe(model="custom_networks:Blind"))
    initial = init_network("custom_networks:Blind", len(CLASSES), seed=1).get_parameter("conv1.weight")
    moved = (torch.load(tmp_path / "weights" / "cifar_net.pth")["conv1.weight"] != initial).flatten(2).any(dim=2)
    assert moved[:, 0].any()
    assert not moved[:, 1:].any()  # green and blue, which it does not use


def test_frozen_layers_stay_unchanged(tmp_path: Path) -> None:
    train(tiny_dataset(), tmp_path / "weights", recipe(model="custom_networks:frozen_in_part"))
    initial = init_network(TUTORIAL.model, len(CLASSES), seed=1).state_dict()
    weights = torch.load(tmp_path / "weights" / "cifar_net.pth")
    assert [name for name in initial if torch.equal(weights[name], initial[name])] == ["conv1.weight", "conv1.bias"]


def test_an_unrelated_prepare_method_is_not_called(tmp_path: Path) -> None:
    assert train(tiny_dataset(), tmp_path / "weights", recipe(model="custom_networks:WithPrepare"))


@pytest.mark.parametrize("network", ["frozen", "without_weights"])
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_a_network_without_trainable_weights_is_refused(tmp_path: Path, network: str, optimizer: str) -> None:
    own = recipe(model=f"custom_networks:{network}", optimizer=optimizer)
    with pytest.raises(InputError) as caught:
        train(tiny_dataset(classes=tuple("abcdefghij")), tmp_path / "weights", own)
    assert str(caught.value) == f"model {own.model}: expected weights that training changes, got none"


def test_a_scripted_network_trains_like_any_other(tmp_path: Path) -> None:
    assert train(tiny_dataset(), tmp_path / "weights", recipe(model="custom_networks:scripted"))


def test_a_network_that_needs_contiguous_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        train(tiny_dataset(), tmp_path / "weights", recipe(**VIEWING, precision="auto"))
    message = str(caught.value)
    expected = "a network that takes images in torch.channels_last"
    assert message.startswith(f"model custom_networks:Viewing: expected {expected}, got view ")
    assert message.endswith("; use flatten or reshape instead of view, or give --precision float32")


def test_a_network_that_needs_contiguous_images_trains_in_float32(tmp_path: Path) -> None:
    assert train(tiny_dataset(), tmp_path / "weights", recipe(**VIEWING, precision="float32"))


# Errors


def test_an_error_in_a_custom_network_is_one_line_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        train(tiny_dataset(), tmp_path / "weights", recipe(model="custom_networks:Failing"))
    message = str(caught.value)
    assert message.startswith(f"{FAILED.format('Failing')}KeyError: True (")
    assert re.search(r"/custom_networks\.py, line \d+\)$", message)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("WithoutGradients", "RuntimeError: element 0 of tensors does not require grad"),
        ("Narrowed", "IndexError: Target 2 is out of bounds."),
    ],
)
def test_an_error_elsewhere_in_a_step_is_one_line(tmp_path: Path, network: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        train(tiny_dataset(), tmp_path / "weights", recipe(model=f"custom_networks:{network}"))
    assert str(caught.value).startswith(FAILED.format(network) + message)


def test_a_network_with_another_output_in_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        train(tiny_dataset(), tmp_path / "weights", recipe(model="custom_networks:WithAuxiliaryOutput"))
    message = "model custom_networks:WithAuxiliaryOutput: expected logits [4, classes] in training mode too, got tuple;"
    assert str(caught.value).startswith(message)


def test_an_error_outside_a_step_is_not_blamed_on_the_network(tmp_path: Path) -> None:
    def failing_callback(_: Progress) -> None:
        raise RuntimeError("the disk is full")

    save_dataset(tiny_dataset(), tmp_path)
    with pytest.raises(RuntimeError, match="the disk is full"):
        build_weights(tmp_path, tmp_path, training(recipe(model="custom_networks:OneLayer")), Monitor(failing_callback))


def test_a_last_batch_too_small_for_batch_norm_is_refused(tmp_path: Path) -> None:
    own = recipe(model="custom_networks:normalized_features", batch_size=4)
    with pytest.raises(InputError) as caught:
        train(tiny_dataset(train=9), tmp_path / "weights", own)
    assert str(caught.value).startswith("--batch-size 4: expected at least two images in each batch")
    train(tiny_dataset(train=10), tmp_path / "again", own)
