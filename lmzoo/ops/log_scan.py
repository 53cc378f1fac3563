"""A linear recurrence of positive numbers whose coefficients are given by their logarithms.

    h_t = a_t h_{t-1} + b_t        0 < a_t <= 1, b_t >= 0, for each feature alone

The recurrence of minGRU and minLSTM (Feng et al. 2024, arXiv 2410.01201). `naive_log_scan` is the definition as a loop
over time. `fused_log_scan` runs the same loop in one operator (`lmzoo.ops.linear_recurrence`), on the exponentials: all
terms are positive, so nothing cancels. With L the largest |log a_t| and |log b_t| of the terms that count, and eps the
unit roundoff of the dtype (2^-24 in float32), a term that was added n steps ago has gone through n products and n sums,
so the relative error of h is at most about

    n (3 + L) eps        with n the number of steps that the gates keep

The paper works on logarithms and subtracts the sum of log a over the whole sequence; its error grows with T times
|log a|. Scans in log space within chunks are as exact as this loop and slower, because of their logarithms.

Legend: B batch, T time, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.linear_recurrence import SHORTEST_FUSED, fused_linear_recurrence
from lmzoo.ops.precision import wide_dtype


def naive_log_scan(log_a_BTD: Tensor, log_b_BTD: Tensor, h_BD: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `log_scan`."""
    log_a, log_b, h_BD = _wide_inputs(log_a_BTD, log_b_BTD, h_BD)
    hs = []
    for a_BD, b_BD in zip(log_a.exp().unbind(1), log_b.exp().unbind(1), strict=True):
        h_BD = a_BD * h_BD + b_BD
        hs.append(h_BD)
    return torch.stack(hs, dim=1), h_BD


def fused_log_scan(log_a_BTD: Tensor, log_b_BTD: Tensor, h_BD: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The fast form; arguments and results as in `log_scan`."""
    log_a, log_b, h_BD = _wide_inputs(log_a_BTD, log_b_BTD, h_BD)
    return fused_linear_recurrence(log_a.exp(), log_b.exp(), h_BD)


def log_scan(log_a_BTD: Tensor, log_b_BTD: Tensor, h_BD: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The recurrence h = a h + b, by the fastest form that fits.

    Args:
        log_a_BTD: the logarithm of the share of the state that is kept, at most 0.
        log_b_BTD: the logarithm of what is added.
        h_BD: the state to start from (itself, not its logarithm), 0 or above, or None for zeros.

    Returns:
        `h_BTD`, the state after every token, and the last one, in float32 (float64 for float64 input): decays close to
        one do not survive bfloat16. Counts as 2 FLOPs per token and feature, a multiply-add.
    """
    scan = dispatch(log_a_BTD.shape[1], naive_log_scan, fused_log_scan, shortest=SHORTEST_FUSED)
    with counted_as(2 * log_a_BTD.numel()):
        return scan(log_a_BTD, log_b_BTD, h_BD)


def _wide_inputs(log_a_BTD: Tensor, log_b_BTD: Tensor, h_BD: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Converts all inputs to float32 or wider; a missing state becomes zeros."""
    dtype = wide_dtype(log_a_BTD.dtype)
    h_BD = log_a_BTD.new_zeros(log_a_BTD.shape[0], log_a_BTD.shape[2]) if h_BD is None else h_BD
    return log_a_BTD.to(dtype), log_b_BTD.to(dtype), h_BD.to(dtype)
