"""The tutorial's side of single steps, a clean process for each: python benchmarks/theirs.py FUNCTION '{…}'."""

import time
from pathlib import Path
from typing import Any

import torch
from processes import answer
from torchvision import transforms
from torchvision.datasets.utils import extract_archive
from tutorial_script import AnyCIFAR10, Net

Measurement = dict[str, float]
TRANSFORM = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])


def normalize(archive: str, into: str) -> Measurement:
    """Seconds from an archive to a dataset of torchvision's, and of a pass over it as its loaders make it."""
    started = time.perf_counter()
    extract_archive(archive, into)
    trainset = AnyCIFAR10(root=into, train=True, download=False, transform=TRANSFORM)
    AnyCIFAR10(root=into, train=False, download=False, transform=TRANSFORM)
    read = time.perf_counter()
    for index in range(len(trainset)):
        trainset[index]
    return {"once_s": read - started, "pass_s": time.perf_counter() - read}


def evaluate(root: str, weights: str) -> Measurement:
    """Seconds from stored weights to an accuracy, by the tutorial's loop as printed."""
    testset = AnyCIFAR10(root=root, train=False, download=False, transform=TRANSFORM)
    testloader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        testset, batch_size=4, shuffle=False, num_workers=2
    )
    started = time.perf_counter()
    net = Net()  # type: ignore[no-untyped-call]
    net.load_state_dict(torch.load(Path(weights) / "cifar_net.pth", weights_only=True))
    correct = 0
    total = 0
    with torch.no_grad():
        for data in testloader:
            images, labels = data
            outputs = net(images)
            _, predicted = torch.max(outputs, 1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
    return {"seconds": time.perf_counter() - started, "accuracy": correct / total}


if __name__ == "__main__":
    answer(normalize, evaluate)
