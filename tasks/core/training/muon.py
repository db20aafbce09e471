"""Muon: momentum whose directions are made orthogonal, for filters; plain momentum for what is no filter."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

ITERATIONS = 3
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized in `dtype` in groups that say so, whose filters keep a mean length of 1.

    Jordan et al. (2024), https://kellerjordan.github.io/posts/muon. torch.optim.Muon takes matrices alone.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], momentum: float, dtype: torch.dtype) -> None:
        super().__init__(groups, {"momentum": momentum, "weight_decay": 0.0, "orthogonal": False})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                direction = self._direction(parameter, group)
                if group["orthogonal"]:
                    parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
                    direction = orthogonalized(direction.flatten(1), self._dtype).view_as(parameter)
                parameter.sub_(direction, alpha=group["lr"])

    def _direction(self, parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
        assert parameter.grad is not None
        gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
        momentum = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        momentum.mul_(group["momentum"]).add_(gradient)
        return gradient.add(momentum, alpha=group["momentum"])


def orthogonalized(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix with its singular values brought near 1, by a Newton-Schulz iteration; bfloat16 is enough for it."""
    a, b, c = COEFFICIENTS
    is_tall = len(matrix) > matrix.shape[1]
    wide = (matrix.T if is_tall else matrix).to(dtype)
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(ITERATIONS):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    found: Tensor = wide.T if is_tall else wide
    return found.to(matrix.dtype)
