"""Networks that are not the project's, as a user would name them by `--model own_networks:…`."""

import functools
import random
import sys
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
    """Drops features when the network is asked, too, and draws by other libraries what it does to the rest."""

    def forward(self, features: Tensor) -> Tensor:
        return dropout(features, 0.1) * (random.uniform(0.9, 1.1) + np.random.normal(scale=0.1))


class Drifting(nn.Module):
    """Keeps what it has seen in training for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        seen = self.get_buffer("seen")
        if self.training:
            seen += features.mean()
        return features + seen / 1_000


def drawing_network(classes: int) -> nn.Module:
    return nn.Sequential(AlwaysDrawing(), Drifting(), dropout_network(classes))


class Slow(nn.Module):
    """Takes its time when it is trained."""

    def forward(self, features: Tensor) -> Tensor:
        if self.training:
            time.sleep(0.15)
        return features


def slow_dropout_network(classes: int) -> nn.Module:
    return dropout_network(classes).append(Slow())


class Failing(OneLayer):
    """Goes wrong when it is trained."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward({False: inputs}[self.training])


class HalfUsed(OneLayer):
    """Has a layer that no step uses."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.unused = nn.Linear(3, 3)


def two_answers(classes: int) -> nn.Module:
    class TwoAnswers(OneLayer):
        def forward(self, inputs: Tensor) -> Any:
            return super().forward(inputs), inputs

    return TwoAnswers(classes)


class Counting(OneLayer):
    """Needs to know how many images there are, and to have one at least."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.contiguous().view(len(inputs), 3, -1))


class WithOtherState(OneLayer):
    """Stores something beside tensors."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, _: object) -> None:
        pass


def scripted(classes: int) -> nn.Module:
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # there are many of its kind yet
        network: nn.Module = torch.jit.script(Net(classes))
    return network


class SlowToPrepare(OneLayer):
    """Has to be shown images for an hour first."""

    def prepare_on_training_images(self, _: Tensor) -> None:
        print("is shown images", flush=True)
        time.sleep(3_600)


def slow_to_make(classes: int) -> nn.Module:
    print("is made", flush=True)
    time.sleep(3_600)
    return OneLayer(classes)


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
    """Has a logit less than there are classes in training."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs)[:, : -1 if self.training else None]


class WithAuxiliaryAnswer(OneLayer):
    """Gives another answer beside its logits in training, as some networks do."""

    def forward(self, inputs: Tensor) -> Any:
        logits = super().forward(inputs)
        return (logits, inputs) if self.training else logits


def never_made(_: int) -> nn.Module:
    raise KeyError("width")


class Blind(Net):
    """The tutorial's network, but it sees one colour only."""

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
    """Takes what a convolution gives to lie in memory as it does by itself."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 8, 3, stride=8), nn.Linear(8 * 4 * 4, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.convolution(inputs).view(-1, 8 * 4 * 4))
        return logits


class WithPrepare(OneLayer):
    """Has a method of its own that happens to be called prepare."""

    def prepare(self) -> None:
        raise AssertionError


class Putting(OneLayer):
    """Does what PyTorch has no repeatable way to do."""

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            inputs = inputs.clone().put_(torch.tensor([0]), torch.tensor([1.0]))
        return super().forward(inputs)


class Endless(OneLayer):
    """Goes through its layer again and again as soon as it is trained."""

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            say_in_a_step()
        while self.training:
            super().forward(inputs)
        return super().forward(inputs)


class Stuck(OneLayer):
    """Takes an hour as soon as it is trained."""

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            say_in_a_step()
            time.sleep(3_600)
        return super().forward(inputs)


def say_in_a_step() -> None:
    print("in a step\n", end="", flush=True)  # in one piece, as workers share their output


class ToldToGoOn(torch.autograd.Function):
    """Waits for a line on the way back."""

    @staticmethod
    def forward(_: Any, features: Tensor) -> Tensor:
        return features.clone()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        say_in_a_step()
        sys.stdin.readline()
        return gradient


class Waiting(nn.Module):
    """Says so when it is on its way back through its layers, and goes on when it is told to."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3 * 32 * 32, 4), nn.Linear(4, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.last(ToldToGoOn.apply(self.first(inputs.flatten(1))))
        return logits


def no_network(classes: int) -> str:
    return f"{classes} classes"


def wrong_head(_: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7))


def other_images(classes: int) -> nn.Module:
    return nn.Linear(12, classes)


class Greedy(OneLayer):
    """Asks for more memory than there is as soon as it is trained."""

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            torch.empty(2**50)
        return super().forward(inputs)


class Undecided(OneLayer):
    """Chooses its way by what is in the images, which no graph can tell beforehand."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits = super().forward(inputs)
        return logits if logits.sum() > 0 else -logits


class Bessel(OneLayer):
    """Computes what ONNX has no word for."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = torch.special.bessel_j0(super().forward(inputs))
        return logits


class Fixed(OneLayer):
    """Takes two images, and no other number."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(inputs.reshape(2, -1))
        return logits


class TwoFaced(OneLayer):
    """Answers otherwise as soon as it is exported."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits = super().forward(inputs)
        return -logits if torch.compiler.is_exporting() else logits
