"""Custom networks, as a user names them by `--model custom_networks:…`."""

import functools
import random
import time
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

import tasks.core.models.airbench
from tasks.core.models.tutorial_net import Net

RATE = 0.1


class OneLayer(nn.Module):
    """A linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 32 * 32, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(inputs.flatten(1))
        return logits


def dropout_network(classes: int) -> nn.Module:
    """Batch statistics, dropout and a few weights."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(5),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(72, classes),
    )


class AlwaysDrawing(nn.Module):
    """Applies dropout in evaluation mode too, and draws random numbers from other libraries."""

    def forward(self, features: Tensor) -> Tensor:
        return dropout(features, 0.1) * (random.uniform(0.9, 1.1) + np.random.normal(scale=0.1))


class Drifting(nn.Module):
    """Has a buffer that training changes and that is not in the state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        seen = self.get_buffer("seen")
        if self.training:
            seen += features.mean()
        return features + seen / 1_000


def random_network(classes: int) -> nn.Module:
    return nn.Sequential(AlwaysDrawing(), Drifting(), dropout_network(classes))


class Slow(nn.Module):
    """Is slow in training mode."""

    def forward(self, features: Tensor) -> Tensor:
        if self.training:
            time.sleep(0.15)
        return features


def slow_dropout_network(classes: int) -> nn.Module:
    return dropout_network(classes).append(Slow())


class Failing(OneLayer):
    """Raises an error in training mode."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward({False: inputs}[self.training])


class HalfUsed(OneLayer):
    """Has a layer that no step uses."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.unused = nn.Linear(3, 3)


def two_outputs(classes: int) -> nn.Module:
    class TwoOutputs(OneLayer):
        def forward(self, inputs: Tensor) -> Any:
            return super().forward(inputs), inputs

    return TwoOutputs(classes)


class Counting(OneLayer):
    """Fails on a batch without images."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.contiguous().view(len(inputs), 3, -1))


class WithOtherState(OneLayer):
    """Has more than tensors in its state_dict."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, _: object) -> None:
        pass


def scripted(classes: int) -> nn.Module:
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch.jit.script is deprecated, but in use
        network: nn.Module = torch.jit.script(Net(classes))
    return network


@functools.wraps(tasks.core.models.airbench.fast)
def half_as_sure(classes: int) -> nn.Module:
    network = tasks.core.models.airbench.fast(classes)
    network.get_parameter("head.weight").data.div_(2)
    return network


class WithoutGradients(OneLayer):
    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs)


class Narrowed(OneLayer):
    """Returns one logit too few in training mode."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs)[:, : -1 if self.training else None]


class WithAuxiliaryOutput(OneLayer):
    """Returns more than its logits in training mode, as some networks do."""

    def forward(self, inputs: Tensor) -> Any:
        logits = super().forward(inputs)
        return (logits, inputs) if self.training else logits


def failing_factory(_: int) -> nn.Module:
    raise KeyError("width")


class Blind(Net):
    """The tutorial's network on the red channel only."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs * torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1))


def frozen_in_part(classes: int) -> nn.Module:
    network = Net(classes)
    network.conv1.requires_grad_(False)
    return network


def frozen(classes: int) -> nn.Module:
    return Net(classes).requires_grad_(False)


def without_weights(_: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(10))


def normalized_features(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4), nn.BatchNorm1d(4), nn.Linear(4, classes))


class Viewing(nn.Module):
    """Views a convolution's output as if it were contiguous."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 8, 3, stride=8), nn.Linear(8 * 4 * 4, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.convolution(inputs).view(-1, 8 * 4 * 4))
        return logits


class WithPrepare(OneLayer):
    """Has an unrelated method named prepare."""

    def prepare(self) -> None:
        raise AssertionError


class Putting(OneLayer):
    """Uses an operation without a deterministic implementation."""

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            inputs = inputs.clone().put_(torch.tensor([0]), torch.tensor([1.0]))
        return super().forward(inputs)


class Stuck(OneLayer):
    """Takes an hour for its second training step."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.steps = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.steps += self.training
        if self.steps == 2:
            print("in a step\n", end="", flush=True)  # in one write, as workers share their output
            time.sleep(3_600)
        return super().forward(inputs)


def no_network(classes: int) -> str:
    return f"{classes} classes"


def wrong_head(_: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7))


def other_images(classes: int) -> nn.Module:
    return nn.Linear(12, classes)


class Greedy(OneLayer):
    """Runs out of memory in training mode."""

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            torch.empty(2**50)
        return super().forward(inputs)


class Undecided(OneLayer):
    """Branches on the values of the images, which no graph can represent."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits = super().forward(inputs)
        return logits if logits.sum() > 0 else -logits


class Bessel(OneLayer):
    """Uses an operation that ONNX does not have."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = torch.special.bessel_j0(super().forward(inputs))
        return logits


class Fixed(OneLayer):
    """Takes exactly two images."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(inputs.reshape(2, -1))
        return logits


class TwoFaced(OneLayer):
    """Returns other logits when exported."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits = super().forward(inputs)
        return -logits if torch.compiler.is_exporting() else logits
