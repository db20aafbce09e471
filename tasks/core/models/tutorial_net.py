"""The tutorial's network."""

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """The tutorial's network; its state_dict has the tutorial's names and shapes.

    https://docs.pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, inputs_nchw: Tensor) -> Tensor:
        """Logits [N, classes] of normalized images [N, 3, 32, 32]."""
        features = self.pool(torch.relu(self.conv1(inputs_nchw)))
        features = self.pool(torch.relu(self.conv2(features)))
        hidden = torch.relu(self.fc1(features.flatten(1)))
        hidden = torch.relu(self.fc2(hidden))
        logits: Tensor = self.fc3(hidden)
        return logits
