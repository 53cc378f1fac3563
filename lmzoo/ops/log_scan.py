"""A linear recurrence of positive numbers whose coefficients are given by their logarithms.

    h_t = a_t h_{t-1} + b_t        0 < a_t <= 1, b_t >= 0, for each feature alone

The recurrence of minGRU and minLSTM (Feng et al. 2024, arXiv 2410.01201). `naive_log_scan` is the definition as a loop
over time. `chunked_log_scan` works in chunks of C positions, on all chunks at once, and stays in log space:

    within each chunk, from zero    log u_t = log(exp(log a_t + log u_{t-1}) + exp(log b_t))
    from chunk to chunk             log s'  = log(exp(sum of log a + log s) + exp(log u_last))
    at each position                h_t     = exp(log u_t) + exp(log a of the chunk, summed up to t, + log s)

Only sums of logarithms that are at most 0 meet an exponential, so nothing overflows. All terms are positive, so nothing
cancels: with L the largest |log b_t| and |log h_t|, and eps the unit roundoff of the dtype (2^-24 in float32), the
relative error of h is at most about

    (2 C + T / C) (2 + 4 L) eps        whatever the decays

The paper subtracts the sum of log a over the whole sequence instead; its error grows with T times |log a|. The backward
pass is the same recurrence backward in time, for gradients of both signs, so it works on a and not on its logarithm.

Legend: B batch, T time, D features; inside N chunks of C positions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.operator import operator
from lmzoo.ops.precision import wide_dtype

CHUNK_LENGTH = 16  # C + T / C steps one after another
SHORTEST_CHUNKED = 8  # for shorter sequences the loop needs fewer calls


def naive_log_scan(log_a_BTD: Tensor, log_b_BTD: Tensor, h_BD: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `log_scan`."""
    log_a, log_b, h_BD = _wide_inputs(log_a_BTD, log_b_BTD, h_BD)
    hs = []
    for a_BD, b_BD in zip(log_a.exp().unbind(1), log_b.exp().unbind(1), strict=True):
        h_BD = a_BD * h_BD + b_BD
        hs.append(h_BD)
    return torch.stack(hs, dim=1), h_BD


def chunked_log_scan(log_a_BTD: Tensor, log_b_BTD: Tensor, h_BD: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The fast form, in chunks of `CHUNK_LENGTH` positions; arguments and results as in `log_scan`."""
    h_BTD = torch.ops.lmzoo.log_scan(*_wide_inputs(log_a_BTD, log_b_BTD, h_BD))
    return h_BTD, h_BTD[:, -1].clone()


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
    scan = dispatch(log_a_BTD.shape[1], naive_log_scan, chunked_log_scan, shortest=SHORTEST_CHUNKED)
    with counted_as(2 * log_a_BTD.numel()):
        return scan(log_a_BTD, log_b_BTD, h_BD)


def _wide_inputs(log_a_BTD: Tensor, log_b_BTD: Tensor, h_BD: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Converts all inputs to float32 or wider; a missing state becomes zeros."""
    dtype = wide_dtype(log_a_BTD.dtype)
    h_BD = torch.zeros_like(log_a_BTD[:, 0]) if h_BD is None else h_BD
    return log_a_BTD.to(dtype), log_b_BTD.to(dtype), h_BD.to(dtype)


# A custom operator, so that autograd does not keep every step of the scan. It contains no matrix product.


@operator("log_scan")
def _scan_forward(log_a_BTD: Tensor, log_b_BTD: Tensor, h_BD: Tensor) -> Tensor:
    """Returns h (B, T, D)."""
    T = log_a_BTD.shape[1]
    log_a, log_u = _in_chunks(log_a_BTD, 0.0), _in_chunks(log_b_BTD, -torch.inf).clone()
    for before, now, log_a_BND in zip(log_u.unbind(2), log_u.unbind(2)[1:], log_a.unbind(2)[1:], strict=False):
        torch.logaddexp(log_a_BND + before, now, out=now)
    sums = log_a.cumsum(2)
    log_s = h_BD.log()
    starts: list[Tensor] = []
    for sum_BD, log_u_BD in zip(sums[:, :, -1].unbind(1), log_u[:, :, -1].unbind(1), strict=True):
        starts.append(log_s)
        log_s = torch.logaddexp(sum_BD + log_s, log_u_BD)
    h_BNCD = sums.add_(torch.stack(starts, dim=1).unsqueeze(2)).exp_().add_(log_u.exp_())
    return h_BNCD.flatten(1, 2)[:, :T].contiguous()


@operator("log_scan_backward")
def _scan_backward(
    grad_h_BTD: Tensor, log_a_BTD: Tensor, log_b_BTD: Tensor, h_BD: Tensor, h_BTD: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of (log_a, log_b, h): g_t = grad_t + a_{t+1} g_{t+1}, in the same chunks, from the last one."""
    T = log_a_BTD.shape[1]
    a_BTD = log_a_BTD.exp()
    a = _in_chunks(F.pad(a_BTD[:, 1:], (0, 0, 0, 1)), 0.0)  # of the next position
    g = _in_chunks(grad_h_BTD, 0.0).clone()
    later, now = g.unbind(2)[:0:-1], g.unbind(2)[-2::-1]
    for later_BND, now_BND, a_BND in zip(later, now, a.unbind(2)[-2::-1], strict=True):
        now_BND.addcmul_(a_BND, later_BND)
    products = a.flip(2).cumprod(2).flip(2)  # from each position to the start of the next chunk
    carry_BD = torch.zeros_like(h_BD)
    ends: list[Tensor] = []
    for product_BD, g_BD in zip(products[:, :, 0].unbind(1)[::-1], g[:, :, 0].unbind(1)[::-1], strict=True):
        ends.append(carry_BD)
        carry_BD = torch.addcmul(g_BD, product_BD, carry_BD)
    g.addcmul_(products, torch.stack(ends[::-1], dim=1).unsqueeze(2))
    g_BTD = g.flatten(1, 2)[:, :T]
    through_a_BTD = g_BTD * a_BTD
    before_BTD = torch.cat([h_BD.unsqueeze(1), h_BTD[:, :-1]], dim=1)
    return through_a_BTD * before_BTD, g_BTD * log_b_BTD.exp(), through_a_BTD[:, 0].clone()


def _in_chunks(x_BTD: Tensor, fill: float) -> Tensor:
    """Returns (B, N, C, D), with `fill` after the end of the last chunk."""
    T = x_BTD.shape[1]
    C = min(CHUNK_LENGTH, T)
    return F.pad(x_BTD, (0, 0, 0, -T % C), value=fill).unflatten(1, (-1, C))


@torch.library.register_fake("lmzoo::log_scan")
def _scan_forward_fake(log_a_BTD: Tensor, log_b_BTD: Tensor, h_BD: Tensor) -> Tensor:
    return log_a_BTD.new_empty(log_a_BTD.shape)


@torch.library.register_fake("lmzoo::log_scan_backward")
def _scan_backward_fake(
    grad_h_BTD: Tensor, log_a_BTD: Tensor, log_b_BTD: Tensor, h_BD: Tensor, h_BTD: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return h_BTD.new_empty(h_BTD.shape), h_BTD.new_empty(h_BTD.shape), h_BD.new_empty(h_BD.shape)


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _backward(ctx: Any, grad_h_BTD: Tensor) -> tuple[Tensor, ...]:
    return torch.ops.lmzoo.log_scan_backward(grad_h_BTD, *ctx.saved_tensors)


torch.library.register_autograd("lmzoo::log_scan", _backward, setup_context=_save_for_backward)
