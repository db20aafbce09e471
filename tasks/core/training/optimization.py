"""Optimizers and learning rates, as a recipe names them."""

import torch
from torch import nn

from tasks.core.recipes import Recipe

WARM_UP = 0.2  # of all steps, in the one-cycle schedule


def new_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at a step, counted from 0, of so many in all."""
    if recipe.schedule == "constant":
        return 1.0
    done = (step + 1) / steps
    return done / WARM_UP if done < WARM_UP else (1 - done) / (1 - WARM_UP)


def set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, steps: int) -> None:
    """Put the learning rate of a step into every group of parameters."""
    rate = recipe.learning_rate * rate_factor(recipe, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
