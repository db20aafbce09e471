"""Optimizers and learning rates, by the names in recipes."""

import pytest
import torch
from torch import Tensor, nn

from tasks.core.models.factory import init_network
from tasks.core.recipes import RECIPES, Recipe
from tasks.core.training.muon import Muon, orthogonalize
from tasks.core.training.optimizers import build_optimizer, rate_factor, set_learning_rate

FAST = RECIPES["fast"]


def recipe(name: str = "tutorial", **changes: object) -> Recipe:
    return Recipe.model_validate(RECIPES[name].model_dump() | changes)  # type: ignore[index]


def random_matrix(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


# Learning rates


def test_a_constant_rate_stays_constant() -> None:
    assert {rate_factor(recipe(schedule="constant"), step, 10) for step in range(10)} == {1.0}


def test_a_linear_rate_falls_to_near_zero() -> None:
    factors = [rate_factor(recipe(schedule="linear"), step, 10) for step in range(10)]
    assert factors == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_a_one_cycle_rate_rises_for_a_fifth_of_the_steps_then_falls() -> None:
    factors = [rate_factor(recipe(schedule="one-cycle"), step, 9) for step in range(9)]
    assert factors == pytest.approx([0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_a_rate_scales_every_group_and_depends_on_the_step_only() -> None:
    optimizer = build_optimizer(init_network(FAST.model, 10, seed=1), FAST)
    first = [group["lr"] for group in optimizer.param_groups]
    set_learning_rate(optimizer, FAST, 7, 10)
    set_learning_rate(optimizer, FAST, 5, 10)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate / 2 for rate in first])


# Muon


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (16, 16)])
def test_directions_become_nearly_orthogonal(shape: tuple[int, int], dtype: torch.dtype) -> None:
    before, after = (
        torch.linalg.svdvals(each)
        for each in (random_matrix(*shape), orthogonalize(random_matrix(*shape)[None], dtype)[0])
    )
    assert after.shape == before.shape
    assert after.median() > 0.6
    assert after.max() < 1.3
    assert before.max() / before.median() > after.max() / after.median()


def test_filters_keep_their_norm_and_the_head_has_nesterov_momentum() -> None:
    network = init_network(FAST.model, 10, seed=1)
    muon = build_optimizer(network, FAST)
    head = nn.Parameter(network.head.weight.detach().clone())  # type: ignore[union-attr,operator]
    sgd = torch.optim.SGD([head], lr=335.0, momentum=0.85, nesterov=True, weight_decay=FAST.weight_decay / 335.0)
    inputs, targets = torch.rand(8, 3, 32, 32), torch.arange(8)
    for _ in range(2):
        muon.zero_grad()
        nn.functional.cross_entropy(network(inputs), targets).backward()
        head.grad = network.head.weight.grad.clone()  # type: ignore[union-attr]
        before = [parameter.detach().clone() for parameter in muon.param_groups[0]["params"]]
        muon.step()
        sgd.step()
        for filters, old in zip(muon.param_groups[0]["params"], before, strict=True):
            moved = filters.detach() - old * len(old) ** 0.5 / old.norm()
            assert 0.5 < moved.norm() / (FAST.learning_rate * min(old.flatten(1).shape) ** 0.5) < 1.3
    torch.testing.assert_close(network.head.weight, head)  # type: ignore[union-attr]


def test_muon_continues_from_its_state_bit_for_bit() -> None:
    def stepped(weight: nn.Parameter, optimizer: Muon, steps: range) -> None:
        for step in steps:
            weight.grad = random_matrix(4, 12).view(4, 3, 2, 2) + step
            optimizer.step()

    def fresh() -> tuple[nn.Parameter, Muon]:
        weight = nn.Parameter(torch.ones(4, 3, 2, 2))
        return weight, Muon([{"params": [weight], "lr": 0.1, "orthogonal": True}], momentum=0.6, dtype=torch.bfloat16)

    whole, optimizer = fresh()
    stepped(whole, optimizer, range(4))
    first, before = fresh()
    stepped(first, before, range(2))
    second, after = fresh()
    second.data.copy_(first.data)
    after.load_state_dict(before.state_dict())
    stepped(second, after, range(2, 4))
    assert torch.equal(second, whole)


@pytest.mark.parametrize("nesterov", [True, False])
def test_other_parameters_move_as_by_torchs_sgd(nesterov: bool) -> None:
    ours, theirs = (nn.Parameter(torch.ones(3)) for _ in range(2))
    muon = Muon([{"params": [ours], "lr": 0.1}], momentum=0.6, dtype=torch.float32, nesterov=nesterov)
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.6, nesterov=nesterov)
    for step in range(3):
        ours.grad, theirs.grad = torch.arange(3.0) + step, torch.arange(3.0) + step
        muon.step()
        sgd.step()
    torch.testing.assert_close(ours, theirs)


def test_filters_that_start_as_zeros_are_trained() -> None:
    filters = nn.Parameter(torch.zeros(4, 3, 2, 2))
    filters.grad = random_matrix(4, 12).view(4, 3, 2, 2)
    Muon([{"params": [filters], "lr": 0.1, "orthogonal": True}], momentum=0.6, dtype=torch.float32).step()
    assert filters.isfinite().all()
    assert filters.flatten(1).norm(dim=1).min() > 0.05


def test_filters_without_a_gradient_stay_unchanged() -> None:
    used, idle = (nn.Parameter(random_matrix(4, 12).view(4, 3, 2, 2)) for _ in range(2))
    group = {"params": [used, idle], "lr": 0.1, "orthogonal": True}
    used.grad = random_matrix(4, 12).view(4, 3, 2, 2)
    Muon([group], momentum=0.6, dtype=torch.float32).step()
    assert not torch.equal(used, idle)
    assert torch.equal(idle, random_matrix(4, 12).view(4, 3, 2, 2))


def test_frozen_weights_are_not_in_the_optimizer() -> None:
    network = init_network(FAST.model, 10, seed=1)
    params = [each for group in build_optimizer(network, FAST).param_groups for each in group["params"]]
    assert {id(each) for each in params} == {id(each) for each in network.parameters() if each.requires_grad}
    assert all(each is not network.whitening.weight for each in params)  # type: ignore[union-attr]
