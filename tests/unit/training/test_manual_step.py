"""The hand-written training step equals autograd with torch.optim.SGD."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as the tutorial has it
from tiny import tiny_batch
from torch import Tensor

from tasks.core.models.tutorial_net import Net
from tasks.core.training.manual_step import (
    Convolution,
    Layer,
    Linear,
    ManualTrainer,
    MaxPool,
    Parameter,
    Reorder,
    split_even_odd,
)


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """Small batches are faster in one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def new_net(classes: int = 10, seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(classes)


def sgd(network: Net, **changes: Any) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), **{"lr": 0.01, "momentum": 0.9} | changes)


def some_images(count: int, classes: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    batch = tiny_batch(count, classes, seed)
    return torch.from_numpy(batch.images) / 127.5 - 1, torch.from_numpy(batch.labels).long()


def eager(
    network: Net, optimizer: torch.optim.Optimizer, images: Tensor, targets: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """The plain loop: losses and hits of each step."""
    losses, hits = [], []
    for batch, labels in zip(images.split(size), targets.split(size), strict=True):
        optimizer.zero_grad()
        logits = network(batch)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        hits.append((logits.argmax(1) == labels).sum())
    return torch.stack(losses), torch.stack(hits)


def close(actual: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=atol)


def same_state(one: Any, other: Any, check: Callable[[Tensor, Tensor], None]) -> None:
    """Check that both have the same keys, and tensors that pass `check`."""
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        check(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same_state(one[key], other[key], check)
    else:
        assert one == other


def bit_for_bit(one: Tensor, other: Tensor) -> None:
    assert torch.equal(one, other)


# The whole step


@pytest.mark.parametrize(
    ("size", "classes", "count", "momentum"),
    [(4, 10, 400, 0.9), (4, 10, 83, 0.9), (1, 2, 30, 0.9), (7, 256, 150, 0.5), (16, 3, 300, 0.9), (4, 10, 100, 0.0)],
)
def test_losses_hits_weights_and_momentum_equal_the_plain_loop(
    size: int, classes: int, count: int, momentum: float
) -> None:
    images, targets = some_images(count, classes)
    plain, ours = new_net(classes), new_net(classes)
    plain_sgd, our_sgd = sgd(plain, lr=0.001, momentum=momentum), sgd(ours, lr=0.001, momentum=momentum)
    losses, hits = eager(plain, plain_sgd, images, targets, size)
    results = ManualTrainer(ours, our_sgd, size).train_chunk(images, targets)
    assert losses.std() > 1e-3  # else equal losses would prove little
    close(results[:, 0], losses)
    assert results[:, 1].tolist() == hits.tolist()
    same_state(ours.state_dict(), plain.state_dict(), close)
    if momentum:
        same_state(our_sgd.state_dict(), plain_sgd.state_dict(), lambda a, b: close(a, b, 1e-4))


def test_chunks_of_any_length_give_the_same_bits() -> None:
    images, targets = some_images(22)
    whole, parts, steps = (new_net() for _ in range(3))
    losses = ManualTrainer(whole, sgd(whole), 4).train_chunk(images, targets)[:, 0]
    trainer = ManualTrainer(parts, sgd(parts), 4)
    for start, stop in ((0, 8), (8, 12), (12, 22)):
        trainer.train_chunk(images[start:stop], targets[start:stop])
    trainer = ManualTrainer(steps, sgd(steps), 4)
    singly = [trainer.step(*batch) for batch in zip(images.split(4), targets.split(4), strict=True)]
    bit_for_bit(torch.stack(singly), losses)
    same_state(parts.state_dict(), whole.state_dict(), bit_for_bit)
    same_state(steps.state_dict(), whole.state_dict(), bit_for_bit)


def test_a_new_learning_rate_applies_from_the_next_chunk() -> None:
    images, targets = some_images(40)
    plain, ours = new_net(), new_net()
    plain_sgd, our_sgd = sgd(plain), sgd(ours)
    trainer = ManualTrainer(ours, our_sgd, 4)
    for rate in (0.01, 0.001):
        plain_sgd.param_groups[0]["lr"] = our_sgd.param_groups[0]["lr"] = rate
        eager(plain, plain_sgd, images, targets, 4)
        trainer.train_chunk(images, targets)
    same_state(ours.state_dict(), plain.state_dict(), close)


# Loading and saving state


def test_training_continues_from_saved_state_bit_for_bit() -> None:
    images, targets = some_images(80)
    ours, resumed = new_net(), new_net(seed=1)
    our_sgd, resumed_sgd = sgd(ours), sgd(resumed)
    trainer = ManualTrainer(ours, our_sgd, 4)
    trainer.train_chunk(images[:40], targets[:40])
    resumed_sgd.load_state_dict(copy.deepcopy(our_sgd.state_dict()))
    resumed.load_state_dict(copy.deepcopy(ours.state_dict()))
    trainer.train_chunk(images[40:], targets[40:])
    ManualTrainer(resumed, resumed_sgd, 4).train_chunk(images[40:], targets[40:])
    same_state(resumed.state_dict(), ours.state_dict(), bit_for_bit)
    same_state(resumed_sgd.state_dict(), our_sgd.state_dict(), bit_for_bit)


def test_weights_loaded_later_are_trained() -> None:
    images, targets = some_images(20)
    ours, other = new_net(), new_net(seed=1)
    trainer = ManualTrainer(ours, sgd(ours), 4)
    ours.load_state_dict(other.state_dict())
    results = trainer.train_chunk(images, targets)
    bit_for_bit(ManualTrainer(other, sgd(other), 4).train_chunk(images, targets), results)


def test_the_plain_loop_and_ours_continue_each_others_training() -> None:
    images, targets = some_images(60)
    plain, ours = new_net(), new_net()
    plain_sgd, our_sgd = sgd(plain), sgd(ours)
    eager(plain, plain_sgd, images, targets, 4)
    eager(ours, our_sgd, images[:20], targets[:20], 4)
    ManualTrainer(ours, our_sgd, 4).train_chunk(images[20:40], targets[20:40])
    eager(ours, our_sgd, images[40:], targets[40:], 4)
    same_state(ours.state_dict(), plain.state_dict(), close)


def test_autograd_can_use_the_results() -> None:
    images, targets = some_images(8)
    network = new_net()
    losses = ManualTrainer(network, sgd(network), 4).train_chunk(images, targets)
    assert not any(tensor.is_inference() for tensor in (losses, *network.state_dict().values()))
    (network(images).mean() * losses[0, 0]).backward()


# Layer by layer


def filled(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parameter(*shape: int) -> Parameter:
    return Parameter(filled(shape, 7) / 10, torch.zeros(shape))


def layer_with(outputs: Tensor) -> Layer:
    layer = Layer(*outputs.shape)
    layer.outputs.copy_(outputs)
    return layer


def run_through(layers: list[Layer], gradient_seed: int = 5) -> Tensor:
    """Run forward, then backward from a random gradient; the gradient."""
    for layer in layers:
        layer.forward()
    gradient = filled(tuple(layers[-1].outputs.shape), gradient_seed)
    layers[-1].gradient.copy_(gradient)
    for layer in reversed(layers):
        layer.backward()
    return gradient


def batch_first(images: Tensor) -> Tensor:
    return images.movedim(-1, 0)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(("channels", "filters", "size"), [(3, 6, 32), (6, 16, 14)])
def test_convolution_and_pooling_equal_autograd(channels: int, filters: int, size: int, count: int) -> None:
    images = layer_with(filled((channels, size, size, count), 1))
    weight, bias = parameter(filters, channels, 5, 5), parameter(filters)
    split = Reorder(images, split_even_odd)
    convolution = Convolution(split, weight)
    pooled = MaxPool(convolution, bias)
    gradient = run_through([split, convolution, pooled])

    inputs = batch_first(images.outputs).clone().requires_grad_()
    leaves = [inputs, weight.values.clone().requires_grad_(), bias.values.clone().requires_grad_()]
    outputs = F.max_pool2d(torch.relu(F.conv2d(*leaves)), 2)
    expected = torch.autograd.grad(outputs, leaves, batch_first(gradient))
    close(batch_first(pooled.outputs), outputs.detach())
    actual = (batch_first(images.gradient), weight.gradient, bias.gradient)
    for ours, theirs in zip(actual, expected, strict=True):
        close(ours, theirs, 1e-4)


@pytest.mark.parametrize("is_last", [False, True])
def test_a_linear_layer_equals_autograd(is_last: bool) -> None:
    previous, weight, bias = layer_with(filled((4, 30), 1)), parameter(20, 30), parameter(20)
    layer = Linear(previous, weight, bias, is_last=is_last)
    gradient = run_through([layer])

    leaves = [tensor.clone().requires_grad_() for tensor in (previous.outputs, weight.values, bias.values)]
    outputs = F.linear(*leaves) if is_last else torch.relu(F.linear(*leaves))
    expected = torch.autograd.grad(outputs, leaves, gradient)
    close(layer.outputs, outputs.detach())
    for ours, theirs in zip((previous.gradient, weight.gradient, bias.gradient), expected, strict=True):
        close(ours, theirs)


def test_of_equal_maxima_the_same_one_as_in_torch_gets_the_gradient() -> None:
    values = torch.tensor([-1.0, 0.0, 1.0])
    windows = torch.cartesian_prod(*[values] * 4)  # all patterns of equal values
    images = windows.view(1, 1, -1, 2, 2).transpose(2, 3).reshape(1, 1, 2, -1)
    previous = Layer(2, 2, 1, 1, len(windows), 1)
    previous.outputs.copy_(windows.view(-1, 2, 2).permute(1, 2, 0).view(previous.outputs.shape))
    gradient = run_through([MaxPool(previous, Parameter(torch.zeros(1), torch.zeros(1)))])

    images.requires_grad_()
    pooled = F.max_pool2d(torch.relu(images), 2)
    [expected] = torch.autograd.grad(pooled, images, gradient.view(1, 1, 1, -1))
    bit_for_bit(previous.gradient.view(2, 2, -1), expected.view(2, -1, 2).transpose(1, 2))


def test_constant_images_train_as_in_the_plain_loop() -> None:
    images, targets = some_images(40)
    images = images.amax((2, 3), keepdim=True).expand_as(images) * torch.linspace(-1, 1, 40)[:, None, None, None]
    plain, ours = new_net(), new_net()
    losses, _ = eager(plain, sgd(plain), images, targets, 4)
    close(ManualTrainer(ours, sgd(ours), 4).train_chunk(images, targets)[:, 0], losses, 1e-4)


# Errors


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"nesterov": True}, "nesterov"),
        ({"weight_decay": 0.1}, "weight_decay"),
        ({"dampening": 0.1}, "dampening"),
        ({"maximize": True}, "maximize"),
    ],
)
def test_sgd_with_more_than_momentum_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    network = new_net()
    with pytest.raises(ValueError, match=f"momentum only, got {named}$"):
        ManualTrainer(network, sgd(network, **changes), 4)


def test_unsupported_optimizers_parameters_and_types_are_refused() -> None:
    network = new_net()
    before = [parameter.data_ptr() for parameter in network.parameters()]
    adam: Any = torch.optim.Adam(network.parameters())
    with pytest.raises(ValueError, match=r"got Adam$"):
        ManualTrainer(network, adam, 4)
    with pytest.raises(ValueError, match="the network's parameters in their order"):
        ManualTrainer(network, sgd(new_net()), 4)
    assert [parameter.data_ptr() for parameter in network.parameters()] == before
    network = new_net().double()
    with pytest.raises(ValueError, match="expected float32 parameters on a CPU"):
        ManualTrainer(network, sgd(network), 4)
