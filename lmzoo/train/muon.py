"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): momentum whose matrices are made orthogonal.

The update of a matrix is its momentum with all singular values moved near one, so that no direction is left behind
because its gradients are small. As `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`: an update's root mean square is
0.2, about that of AdamW's, so both share a learning rate (Liu et al. 2025, arXiv 2502.16982). Differs from torch's in
that matrices of a shape are worked on together: for small models that takes 0.6 times as long.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

MOMENTUM = 0.95
UPDATE_RMS = 0.2
# The quintic that is steepest at zero, and how often it is applied (both from the post): singular values from 0.003 on
# end between 0.68 and 1.14. They need not be one: training does not notice, and getting there is what costs.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
DTYPE = torch.bfloat16  # exact enough, but a sum in another order, as on other ranks, can move a number by 2**-8 of it


class Muon(AdamW):
    """Muon for the matrices in the groups of role `matrix`, AdamW for everything else."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient. The matrices' gradients are gone after it."""
        for group in self.param_groups:
            if group["role"] == "matrix":
                for together in _by_shape(group["params"]):
                    self._step_matrices(together, group["lr"], group["weight_decay"])
        return super().step(closure)  # AdamW passes over what has no gradient

    def _step_matrices(self, matrices: list[Tensor], rate: float, weight_decay: float) -> None:
        """One step for matrices that have the same two sizes, in whatever order."""
        wide_NSL: list[Tensor] = []
        for matrix in matrices:
            gradient, state = matrix.grad, self.state[matrix]
            assert gradient is not None
            if not state:
                state["momentum_buffer"] = torch.zeros_like(matrix)
            state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
            ahead = gradient.lerp(state["momentum_buffer"], MOMENTUM)  # Nesterov: one step further on
            wide_NSL.append(_wide(ahead))
            matrix.grad = None
        updates_NSL = orthogonalised(torch.stack(wide_NSL)).to(matrices[0].dtype)
        scale = UPDATE_RMS * math.sqrt(updates_NSL.shape[2])
        for matrix, update_SL in zip(matrices, updates_NSL, strict=True):
            matrix.mul_(1 - rate * weight_decay)
            _wide(matrix).add_(update_SL, alpha=-rate * scale)


def orthogonalised(x_NSL: Tensor) -> Tensor:
    """Each of N matrices (S, L), S <= L, with its singular values moved near one: (N, S, L) in `DTYPE`.

    By `ITERATIONS` of Newton and Schulz: products of matrices alone.
    """
    a, b, c = COEFFICIENTS
    x_NSL = x_NSL.to(DTYPE)
    x_NSL = x_NSL / x_NSL.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # no singular value is above one
    for _ in range(ITERATIONS):
        gram_NSS = x_NSL @ x_NSL.mT
        change_NSS = torch.baddbmm(gram_NSS, gram_NSS, gram_NSS, beta=b, alpha=c)
        x_NSL = torch.baddbmm(x_NSL, change_NSS, x_NSL, beta=a)
    return x_NSL


def _by_shape(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """The matrices that have a gradient, those of one shape together, lying or standing.

    What has more than two dimensions (the filters of a convolution) is no matrix, and is left to AdamW.
    """
    found: dict[tuple[int, ...], list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None and parameter.ndim == 2:
            found.setdefault(tuple(sorted(parameter.shape)), []).append(parameter)
    yield from found.values()


def _wide(matrix: Tensor) -> Tensor:
    """A view of it with at least as many columns as rows."""
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
