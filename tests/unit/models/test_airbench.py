"""The network with a whitening first layer."""

from collections.abc import Iterator

import pytest
import torch
from torch.nn.functional import unfold

from tasks.core.models.airbench import fast


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """Small batches are faster in one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def some_images() -> torch.Tensor:
    """Smooth images with correlated neighbouring pixels."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(300, 3, 9, 9, generator=generator)
    return torch.nn.functional.interpolate(coarse, 32, mode="bilinear")


def test_the_first_layers_outputs_are_uncorrelated_with_equal_variance() -> None:
    images = some_images()
    network = fast(10)
    network.prepare_on_training_images(images)  # type: ignore[operator]
    outputs = network.whitening(images)[:, :12].transpose(0, 1).flatten(1)  # type: ignore[operator]
    moments = outputs @ outputs.T / outputs.shape[1]
    patches = unfold(images, 2).transpose(1, 2).flatten(0, 1)
    variances = torch.linalg.eigvalsh(patches.T @ patches / len(patches))
    torch.testing.assert_close(moments, torch.diag(variances / (variances + 1e-4)), rtol=0, atol=1e-2)


def test_the_first_layer_has_each_filter_and_its_negative() -> None:
    network = fast(10)
    network.prepare_on_training_images(some_images())  # type: ignore[operator]
    filters, negatives = network.whitening.weight.chunk(2)  # type: ignore[operator,union-attr]
    assert torch.equal(filters, -negatives)


def test_it_memorizes_a_few_images() -> None:
    torch.manual_seed(0)
    images, labels = some_images()[:10], torch.arange(10) % 5
    network = fast(5)
    network.prepare_on_training_images(images)  # type: ignore[operator]
    optimizer = torch.optim.Adam([each for each in network.parameters() if each.requires_grad], lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
