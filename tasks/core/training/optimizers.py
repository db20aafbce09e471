"""Optimizers and learning rates, as a recipe names them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tasks.core.errors import InputError
from tasks.core.recipes import Recipe
from tasks.core.runtime.device import precision_for
from tasks.core.training.cuda_graph import supports_cuda_graph
from tasks.core.training.muon import Muon

WARM_UP = 0.2  # of all steps, in the one-cycle schedule

# For what Muon leaves to plain momentum, for each image of a batch; https://github.com/KellerJordan/cifar10-airbench.
HEAD_RATE, OTHERS_RATE, OTHERS_MOMENTUM = 0.67, 0.053, 0.85


def new_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of a network on its device; its rates are tensors where a recorded step is to read them anew."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError(f"model {recipe.model}: expected weights that training changes, got none")
    device = trained[0].device
    recordable = supports_cuda_graph(recipe, device)
    optimizer = _muon(trained, recipe) if recipe.optimizer == "muon" else _sgd(network, recipe, fused=recordable)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
        if recordable:
            group["lr"] = torch.tensor(group["lr"], device=device)
    return optimizer


def _sgd(network: nn.Module, recipe: Recipe, *, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=fused,
    )


def _muon(trained: Sequence[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    """Filters by Muon; matrices, as of the head, and the rest each with a rate of their own."""
    filters, matrices = ([each for each in trained if each.ndim == ndim] for ndim in (4, 2))
    rest = [each for each in trained if each.ndim not in (2, 4)]
    groups = [
        {"params": filters, "lr": recipe.learning_rate, "orthogonal": True},
        *(
            {"params": params, "lr": rate, "momentum": OTHERS_MOMENTUM, "weight_decay": recipe.weight_decay / rate}
            for params, rate in ((matrices, HEAD_RATE * recipe.batch_size), (rest, OTHERS_RATE * recipe.batch_size))
        ),
    ]
    dtype = precision_for(trained[0].device, recipe.precision)
    used = [group for group in groups if group["params"]]
    return Muon(used, recipe.momentum, dtype, nesterov=recipe.nesterov)


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """What learning rates are multiplied by at a step, counted from 0, of so many in all."""
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "linear":
        return 1 - step / steps
    done = (step + 1) / (steps + 1)  # so that the last step changes something, too
    return done / WARM_UP if done < WARM_UP else (1 - done) / (1 - WARM_UP)


def set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, steps: int) -> None:
    """Put the learning rate of a step into every group of parameters."""
    factor = rate_factor(recipe, step, steps)
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * factor
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
