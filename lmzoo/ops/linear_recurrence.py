"""The elementwise linear recurrence h_t = a_t h_{t-1} + x_t with a decay for each token and channel.

The core of the RG-LRU (De et al. 2024, arXiv 2402.19427, equation 4). `naive_linear_recurrence` is the definition.
`fused_linear_recurrence` runs the same loop in place over memory with time first, in one operator with a hand-written
backward pass: autograd would keep and add a tensor per step. Nothing is divided by a product of decays, so decays of 0
and 1 are exact.

Shapes: B batch, T time, D channels. Inside the fast form time comes first (TBD).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.operator import operator
from lmzoo.ops.precision import wide_dtype

SHORTEST_FUSED = 12  # for shorter sequences the loop needs fewer calls


def naive_linear_recurrence(a_BTD: Tensor, x_BTD: Tensor, h_BD: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `linear_recurrence`."""
    a_BTD, x_BTD_wide, h_BD = _wide_inputs(a_BTD, x_BTD, h_BD)
    hs = []
    for a_BD, x_BD in zip(a_BTD.unbind(1), x_BTD_wide.unbind(1), strict=True):
        h_BD = a_BD * h_BD + x_BD
        hs.append(h_BD)
    return torch.stack(hs, dim=1).to(x_BTD.dtype), h_BD


def fused_linear_recurrence(a_BTD: Tensor, x_BTD: Tensor, h_BD: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The fast form, with a hand-written backward pass; arguments and results as in `linear_recurrence`."""
    a_BTD, x_BTD_wide, h_BD = _wide_inputs(a_BTD, x_BTD, h_BD)
    a_TBD, x_TBD = (x.transpose(0, 1).contiguous() for x in (a_BTD, x_BTD_wide))
    h_TBD = torch.ops.lmzoo.linear_recurrence(a_TBD, x_TBD, h_BD.contiguous())
    return h_TBD.transpose(0, 1).to(x_BTD.dtype), h_TBD[-1].clone()


def linear_recurrence(a_BTD: Tensor, x_BTD: Tensor, h_BD: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The linear recurrence, by the fastest form that fits.

    Args:
        a_BTD: the decays, from 0 (forgets all) to 1 (forgets nothing).
        x_BTD: what is added.
        h_BD: the state to start from, or None for zeros.

    Returns:
        All states `h_BTD` in the dtype of `x_BTD`, and the last one (B, D). Computation and state are float32 whatever
        the dtype of `x_BTD` (float64 if that is): decays close to one do not survive bfloat16.
    """
    form = dispatch(x_BTD.shape[1], naive_linear_recurrence, fused_linear_recurrence, shortest=SHORTEST_FUSED)
    return form(a_BTD, x_BTD, h_BD)


def _wide_inputs(a_BTD: Tensor, x_BTD: Tensor, h_BD: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    dtype = wide_dtype(x_BTD.dtype)
    h_BD = x_BTD.new_zeros(x_BTD.shape[0], x_BTD.shape[2]) if h_BD is None else h_BD
    return a_BTD.to(dtype), x_BTD.to(dtype), h_BD.to(dtype)


# A custom operator, so that torch.compile captures one opaque call instead of unrolling the loop.


@operator("linear_recurrence")
def _forward(a_TBD: Tensor, x_TBD: Tensor, h_BD: Tensor) -> Tensor:
    """Returns the states after every step (T, B, D)."""
    h_TBD = x_TBD.clone()
    before_BD = h_BD
    for a_BD, now_BD in zip(a_TBD.unbind(0), h_TBD.unbind(0), strict=True):
        before_BD = now_BD.addcmul_(a_BD, before_BD)
    return h_TBD


@operator("linear_recurrence_backward")
def _backward_pass(grad_TBD: Tensor, a_TBD: Tensor, h_BD: Tensor, h_TBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of (a, x, first h): the recurrence g_t = grad_t + a_{t+1} g_{t+1} from the last step to the first.

    g is the gradient of x, and g_t h_{t-1} the gradient of a_t.
    """
    g_TBD = grad_TBD.clone()
    later = zip(reversed(a_TBD.unbind(0)[1:]), reversed(g_TBD.unbind(0)[1:]), strict=True)
    for now_BD, (a_BD, later_BD) in zip(reversed(g_TBD.unbind(0)[:-1]), later, strict=True):
        now_BD.addcmul_(a_BD, later_BD)
    grad_a_TBD = torch.empty_like(a_TBD)
    torch.mul(g_TBD[1:], h_TBD[:-1], out=grad_a_TBD[1:])
    torch.mul(g_TBD[0], h_BD, out=grad_a_TBD[0])
    return grad_a_TBD, g_TBD, a_TBD[0] * g_TBD[0]


@torch.library.register_fake("lmzoo::linear_recurrence")
def _forward_fake(a_TBD: Tensor, x_TBD: Tensor, h_BD: Tensor) -> Tensor:
    return torch.empty_like(x_TBD)


@torch.library.register_fake("lmzoo::linear_recurrence_backward")
def _backward_fake(grad_TBD: Tensor, a_TBD: Tensor, h_BD: Tensor, h_TBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(a_TBD), torch.empty_like(grad_TBD), torch.empty_like(h_BD)


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    a_TBD, _, h_BD = inputs
    ctx.save_for_backward(a_TBD, h_BD, output)


def _backward(ctx: Any, grad_TBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.lmzoo.linear_recurrence_backward(grad_TBD.contiguous(), *ctx.saved_tensors)


torch.library.register_autograd("lmzoo::linear_recurrence", _backward, setup_context=_save_for_backward)
