"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): momentum with orthogonalized matrices.

The update of a matrix is its momentum with all singular values moved near one, so that directions with small gradients
learn as fast as the others. The scale is the same as in `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`: the root
mean square of an update is 0.2, about the same as with AdamW, so both share a learning rate (Liu et al. 2025, arXiv
2502.16982). Unlike in torch's Muon, matrices of the same shape are updated in one batch, which is faster for small
models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lmzoo.hardware import multiplies_bf16
from lmzoo.train.adamw import AdamW

MOMENTUM = 0.95
UPDATE_RMS = 0.2
# The quintic polynomial that is steepest at zero, and the number of iterations (both from the post): singular values
# above 0.003 end between 0.68 and 1.14. Training does not need exactly one, which would take more iterations.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
DIMENSIONS = {"matrix": 2, "matrices": 3}  # number of dimensions of the parameters that Muon updates, by role


class Muon(AdamW):
    """Muon for the groups of role `matrix` and `matrices` (stacks of matrices, experts), AdamW for everything else."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient, and set the gradients of matrices to None."""
        for group in self.param_groups:
            if group["role"] in DIMENSIONS:
                for parameters in _by_shape(group["params"], DIMENSIONS[group["role"]]):
                    self._step_matrices(parameters, group["lr"], group["weight_decay"])
        return super().step(closure)  # AdamW skips parameters without a gradient

    def _step_matrices(self, parameters: list[Tensor], rate: float, weight_decay: float) -> None:
        """Update parameters whose last two sizes are the same, in either order."""
        wide_NSL: list[Tensor] = []
        for parameter in parameters:
            gradient, state = parameter.grad, self.state[parameter]
            assert gradient is not None
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
            ahead = gradient.lerp(state["momentum_buffer"], MOMENTUM)  # Nesterov momentum
            wide_NSL.append(_wide(ahead))
            parameter.grad = None
        updates_NSL = orthogonalized(torch.cat(wide_NSL)).to(parameters[0].dtype)
        scale = UPDATE_RMS * math.sqrt(updates_NSL.shape[2])
        counts = [len(wide) for wide in wide_NSL]
        for parameter, update_NSL in zip(parameters, updates_NSL.split(counts), strict=True):
            parameter.mul_(1 - rate * weight_decay)
            _wide(parameter).add_(update_NSL, alpha=-rate * scale)


def orthogonalized(x_NSL: Tensor) -> Tensor:
    """Move the singular values of N matrices (S, L), S <= L, near one: (N, S, L) in bfloat16 or float32.

    Runs `ITERATIONS` Newton-Schulz iterations, which consist of matrix products only. They run in bfloat16 where the
    device has instructions for it. That is precise enough: a sum in another order, as on other ranks, changes a value
    by up to 2**-8.
    """
    a, b, c = COEFFICIENTS
    x_NSL = x_NSL.to(torch.bfloat16 if multiplies_bf16(x_NSL.device) else torch.float32)
    x_NSL = x_NSL / x_NSL.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # no singular value is above one
    for _ in range(ITERATIONS):
        gram_NSS = x_NSL @ x_NSL.mT
        change_NSS = torch.baddbmm(gram_NSS, gram_NSS, gram_NSS, beta=b, alpha=c)
        x_NSL = torch.baddbmm(x_NSL, change_NSS, x_NSL, beta=a)
    return x_NSL


def _by_shape(parameters: list[Tensor], dimensions: int) -> Iterator[list[Tensor]]:
    """Group the parameters that have a gradient and `dimensions` dimensions by their last two sizes, in either order.

    A parameter of role `matrix` with more dimensions (the filters of a convolution) is left to AdamW.
    """
    found: dict[tuple[int, ...], list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None and parameter.ndim == dimensions:
            found.setdefault(tuple(sorted(parameter.shape[-2:])), []).append(parameter)
    yield from found.values()


def _wide(parameter: Tensor) -> Tensor:
    """View `parameter` as a stack of matrices (N, S, L) with at least as many columns as rows."""
    stack = parameter if parameter.ndim == 3 else parameter[None]
    return stack.mT if stack.shape[1] > stack.shape[2] else stack
