"""Muon: orthogonalized momentum for filters, plain momentum for other parameters."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

ITERATIONS = 3
MIN_NORM = 1e-7  # for the division by a norm: filters may start as zeros
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """SGD with momentum, orthogonalized in `dtype` in groups with `orthogonal`, whose filters keep a mean norm of 1.

    Jordan et al. (2024), https://kellerjordan.github.io/posts/muon. torch.optim.Muon takes matrices only.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], momentum: float, dtype: torch.dtype, *, nesterov: bool = False
    ) -> None:
        defaults = {"momentum": momentum, "nesterov": nesterov, "weight_decay": 0.0, "orthogonal": False}
        super().__init__(groups, defaults)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters of a group together, which keeps a GPU busier."""
        assert closure is None
        for group in self.param_groups:
            parameters = [each for each in group["params"] if each.grad is not None]
            if parameters:
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        directions = self._directions(parameters, group)
        if group["orthogonal"]:
            directions = self._orthogonalized(directions)
            norms = torch._foreach_norm(parameters)
            torch._foreach_clamp_min_(norms, MIN_NORM)
            scales = [len(each) ** 0.5 / norm for each, norm in zip(parameters, norms, strict=True)]
            torch._foreach_mul_(parameters, scales)
        torch._foreach_mul_(directions, group["lr"])
        torch._foreach_sub_(parameters, directions)

    def _directions(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        gradients: list[Any] = [each.grad for each in parameters]
        decayed = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        for each in parameters:
            if "momentum_buffer" not in self.state[each]:
                self.state[each]["momentum_buffer"] = torch.zeros_like(each)
        momenta = [self.state[each]["momentum_buffer"] for each in parameters]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, decayed)
        if not group["nesterov"]:
            return [momentum.clone() for momentum in momenta]
        return list(torch._foreach_add(decayed, momenta, alpha=group["momentum"]))

    def _orthogonalized(self, directions: Sequence[Tensor]) -> list[Tensor]:
        """Each direction orthogonalized; neighbours of the same shape in one batch."""
        orthogonal: list[Tensor] = []
        for shape, group in groupby(directions, key=lambda each: each.shape):
            matrices = torch.stack([each.flatten(1) for each in group])
            orthogonal += orthogonalize(matrices, self._dtype).unflatten(2, shape[1:]).unbind()
        return orthogonal


def orthogonalize(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Bring the singular values of matrices [N, rows, columns] near 1, by a Newton-Schulz iteration.

    bfloat16 is precise enough for it.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    wide = (matrices.mT if is_tall else matrices).to(dtype)
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = wide @ wide.mT
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        wide = torch.baddbmm(wide, polynomial, wide, beta=a)
    orthogonal: Tensor = wide.mT if is_tall else wide
    return orthogonal.to(matrices.dtype)
