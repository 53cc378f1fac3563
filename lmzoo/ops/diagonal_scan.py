"""The linear recurrence h_t = a h_{t-1} + x_t of complex numbers, with the same a at each token.

The core of S5 (Smith et al. 2022, arXiv 2208.04933): a state-space model with a diagonal matrix that does not depend on
the token. A complex number is a pair of real ones in the last axis, because compilers and lower precisions know only
real numbers. |a| is at most 1, so no power of it overflows.

`naive_diagonal_scan` is the definition. `doubling_diagonal_scan` is a parallel scan (Hillis & Steele 1986): after the
pass k, position t holds the sum of the last 2^k inputs with their powers of a, and the next pass adds what position
t - 2^k holds, times a^(2^k). It needs log2 T passes over all positions at once. A position reads only earlier ones.

Legend: B batch, T time, N states, 2 real and imaginary part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.precision import wide_dtype

SHORTEST_DOUBLING = 4  # for shorter sequences the loop needs fewer calls


def naive_diagonal_scan(a_N2: Tensor, x_BTN2: Tensor, h_BN2: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `diagonal_scan`."""
    a_N2, x_BTN2, h_BN2 = _wide_inputs(a_N2, x_BTN2, h_BN2)
    hs = []
    for x_BN2 in x_BTN2.unbind(1):
        h_BN2 = times(a_N2, h_BN2) + x_BN2
        hs.append(h_BN2)
    return torch.stack(hs, dim=1), h_BN2


def doubling_diagonal_scan(a_N2: Tensor, x_BTN2: Tensor, h_BN2: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The fast form, in log2 T passes; arguments and results as in `diagonal_scan`."""
    power_N2, x_BTN2, h_BN2 = _wide_inputs(a_N2, x_BTN2, h_BN2)
    h_BTN2 = torch.cat([(x_BTN2[:, 0] + times(power_N2, h_BN2))[:, None], x_BTN2[:, 1:]], dim=1)
    reach = 1
    while reach < x_BTN2.shape[1]:
        later = h_BTN2[:, reach:] + times(power_N2, h_BTN2[:, :-reach])
        h_BTN2 = torch.cat([h_BTN2[:, :reach], later], dim=1)
        power_N2 = times(power_N2, power_N2)
        reach *= 2
    return h_BTN2, h_BTN2[:, -1].clone()


def diagonal_scan(a_N2: Tensor, x_BTN2: Tensor, h_BN2: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The recurrence h = a h + x, by the fastest form that fits.

    Args:
        a_N2: the factors, complex numbers in the unit circle.
        x_BTN2: what is added.
        h_BN2: the state to start from, or None for zeros.

    Returns:
        `h_BTN2`, the state after every token, and the last one, in float32 (float64 for float64 input). Counts as 8
        FLOPs per token and state: a complex number times another one takes 4 multiply-adds.
    """
    form = dispatch(x_BTN2.shape[1], naive_diagonal_scan, doubling_diagonal_scan, shortest=SHORTEST_DOUBLING)
    with counted_as(4 * x_BTN2.numel()):
        return form(a_N2, x_BTN2, h_BN2)


def times(x_2: Tensor, y_2: Tensor) -> Tensor:
    """Multiplies complex numbers, pairs in the last axis."""
    (x_re, x_im), (y_re, y_im) = x_2.unbind(-1), y_2.unbind(-1)
    return torch.stack([x_re * y_re - x_im * y_im, x_re * y_im + x_im * y_re], dim=-1)


def powers(a_2: Tensor, n: int) -> Tensor:
    """Returns a^0 ... a^n of complex numbers, pairs in the last axis: (n + 1, ..., 2)."""
    one_2 = torch.stack([torch.ones_like(a_2[..., 0]), torch.zeros_like(a_2[..., 0])], dim=-1)
    power_n2 = torch.stack([one_2, a_2])
    while len(power_n2) <= n:
        power_n2 = torch.cat([power_n2, times(power_n2[1:], power_n2[-1])])
    return power_n2[: n + 1]


def _wide_inputs(a_N2: Tensor, x_BTN2: Tensor, h_BN2: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Converts all inputs to float32 or wider; a missing state becomes zeros."""
    dtype = wide_dtype(x_BTN2.dtype)
    h_BN2 = torch.zeros_like(x_BTN2[:, 0]) if h_BN2 is None else h_BN2
    return a_N2.to(dtype), x_BTN2.to(dtype), h_BN2.to(dtype)
