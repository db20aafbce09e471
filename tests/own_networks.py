"""Networks that are not the project's, as a user would name them by `--model own_networks:…`."""

import sys
import time
from typing import Any

import torch
from torch import Tensor, nn


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


class Viewing(nn.Module):
    """Takes what a convolution gives to lie in memory as it does by itself."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 8, 3, stride=8), nn.Linear(8 * 4 * 4, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.convolution(inputs).view(-1, 8 * 4 * 4))
        return logits


class Putting(nn.Module):
    """Does what PyTorch has no repeatable way to do."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 32 * 32, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            inputs = inputs.clone().put_(torch.tensor([0]), torch.tensor([1.0]))
        logits: Tensor = self.head(inputs.flatten(1))
        return logits


class Endless(nn.Module):
    """Says so when its first training step begins, which goes through its layer again and again."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, classes))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.layer(inputs)
        if self.training:
            print("in a step\n", end="", flush=True)  # in one piece, as workers share their output
        while self.training:
            self.layer(inputs)
        return logits


class ToldToGoOn(torch.autograd.Function):
    """Waits for a line on the way back."""

    @staticmethod
    def forward(_: Any, features: Tensor) -> Tensor:
        return features.clone()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        print("in a step", flush=True)
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


class Stuck(Endless):
    """The same, but the layer that it is in takes an hour."""

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            print("in a step\n", end="", flush=True)  # in one piece, as workers share their output
            time.sleep(3_600)
        logits: Tensor = self.layer(inputs)
        return logits


def no_network(classes: int) -> str:
    return f"{classes} classes"


def wrong_head(_: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7))


def other_images(classes: int) -> nn.Module:
    return nn.Linear(12, classes)


class Greedy(nn.Module):
    """Asks for more memory than there is as soon as it is trained."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 32 * 32, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            torch.empty(2**50)
        logits: Tensor = self.head(inputs.flatten(1))
        return logits


class Undecided(nn.Module):
    """Chooses its way by what is in the images, which no graph can tell beforehand."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 32 * 32, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(inputs.flatten(1))
        return logits if logits.sum() > 0 else -logits


class Bessel(Undecided):
    """Computes what ONNX has no word for."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = torch.special.bessel_j0(self.head(inputs.flatten(1)))
        return logits


class Fixed(Undecided):
    """Takes two images, and no other number."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(inputs.reshape(2, -1))
        return logits


class TwoFaced(Undecided):
    """Answers otherwise as soon as it is exported."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(inputs.flatten(1))
        return -logits if torch.compiler.is_exporting() else logits
