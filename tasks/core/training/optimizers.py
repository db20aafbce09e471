"""Optimizers and learning rates, by the names in recipes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tasks.core.errors import InputError
from tasks.core.recipes import Recipe
from tasks.core.runtime.device import precision_for
from tasks.core.training.cuda_graph import supports_cuda_graph
from tasks.core.training.muon import Muon

WARM_UP = 0.2  # of all steps, in the one-cycle schedule

# Learning rates per image of a batch, for the parameters that Muon updates by plain momentum.
# https://github.com/KellerJordan/cifar10-airbench
MATRIX_RATE, VECTOR_RATE, PLAIN_MOMENTUM = 0.67, 0.053, 0.85


def build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of a network on its device; its learning rates are tensors if a CUDA graph reads them."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError(f"model {recipe.model}", expected="weights that training changes", got="none")
    device = trained[0].device
    optimizer: torch.optim.Optimizer
    in_graph = supports_cuda_graph(recipe, device)
    if recipe.optimizer == "muon":
        optimizer = _muon(trained, recipe)
    else:
        optimizer = torch.optim.SGD(
            network.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=in_graph,
        )
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
        if in_graph:
            group["lr"] = torch.tensor(group["lr"], device=device)
    return optimizer


def _muon(trained: Sequence[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    """Muon for filters; plain momentum for matrices, as in the head, and for vectors, each with its own rate."""
    filters, matrices = ([each for each in trained if each.ndim == ndim] for ndim in (4, 2))
    vectors = [each for each in trained if each.ndim not in (2, 4)]
    groups: list[dict[str, Any]] = [{"params": filters, "lr": recipe.learning_rate, "orthogonal": True}]
    for params, image_rate in ((matrices, MATRIX_RATE), (vectors, VECTOR_RATE)):
        rate = image_rate * recipe.batch_size
        decay = recipe.weight_decay / rate
        groups.append({"params": params, "lr": rate, "momentum": PLAIN_MOMENTUM, "weight_decay": decay})
    dtype = precision_for(trained[0].device, recipe.precision)
    nonempty = [group for group in groups if group["params"]]
    return Muon(nonempty, recipe.momentum, dtype, nesterov=recipe.nesterov)


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """The factor on all learning rates at a step, counted from 0, of `steps`."""
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "linear":
        return 1 - step / steps
    done = (step + 1) / (steps + 1)  # above 0 in the last step
    return done / WARM_UP if done < WARM_UP else (1 - done) / (1 - WARM_UP)


def set_learning_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, steps: int) -> None:
    """Set the learning rate of a step in every parameter group."""
    factor = rate_factor(recipe, step, steps)
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * factor
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
