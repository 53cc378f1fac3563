"""The recurrence of the simple recurrent network (Elman 1990): h_t = tanh(x_t + W_hh h_{t-1}).

x is the part that comes from the input, with its bias: the caller computes it for all times in one matrix product.
`naive_rnn` is the definition. `fused_rnn` saves only the outputs and has a hand-written backward pass: the gradient of
the weight is one matrix product at the end.

Shapes: B batch, T time, H hidden width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.operator import operator
from lmzoo.ops.precision import wide_dtype, without_autocast

SHORTEST_FUSED = 6  # for shorter sequences the loop needs fewer calls


def naive_rnn(x_BTH: Tensor, weight_HH: Tensor, h_BH: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `rnn_scan`."""
    x, weight, h_BH = _wide_inputs(x_BTH, weight_HH, h_BH)
    hs = []
    with without_autocast(x):
        for x_BH in x.unbind(1):
            h_BH = torch.tanh(x_BH + h_BH @ weight.t())
            hs.append(h_BH)
    return torch.stack(hs, dim=1).to(x_BTH.dtype), h_BH


def fused_rnn(x_BTH: Tensor, weight_HH: Tensor, h_BH: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The fast form, with a hand-written backward pass; arguments and results as in `rnn_scan`."""
    h_BTH = torch.ops.lmzoo.rnn(*(x.contiguous() for x in _wide_inputs(x_BTH, weight_HH, h_BH)))
    return h_BTH.to(x_BTH.dtype), h_BTH[:, -1].clone()


def rnn_scan(x_BTH: Tensor, weight_HH: Tensor, h_BH: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The recurrence of a simple recurrent network, by the fastest form that fits.

    Args:
        x_BTH: the part from the input, bias included.
        weight_HH: the recurrent weight; its rows are outputs.
        h_BH: the hidden state to start from, or None for zeros.

    Returns:
        `y_BTH`, the hidden state after every token, in the dtype of `x_BTH`; and the last `h_BH`, in float32 (float64
        for float64 input).
    """
    scan = dispatch(x_BTH.shape[1], naive_rnn, fused_rnn, shortest=SHORTEST_FUSED)
    return scan(x_BTH, weight_HH, h_BH)


def _wide_inputs(x_BTH: Tensor, weight_HH: Tensor, h_BH: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Converts all inputs to float32 or wider; a missing state becomes zeros."""
    dtype = wide_dtype(x_BTH.dtype)
    h_BH = x_BTH.new_zeros(x_BTH.shape[0], x_BTH.shape[2]) if h_BH is None else h_BH
    return x_BTH.to(dtype), weight_HH.to(dtype), h_BH.to(dtype)


# The fast form is an opaque custom operator, so that torch.compile captures one node instead of unrolling the loop.
# Inside, every product writes into an existing tensor (`out=`), whose dtype autocast does not change.


@operator("rnn")
def _rnn_forward(x_BTH: Tensor, weight_HH: Tensor, h_BH: Tensor) -> Tensor:
    """Returns h (B, T, H)."""
    h_BTH = torch.empty_like(x_BTH)
    h, weight_t = h_BH, weight_HH.t()
    for x_BH, out_BH in zip(x_BTH.unbind(1), h_BTH.unbind(1), strict=True):
        h = torch.addmm(x_BH, h, weight_t, out=out_BH).tanh_()
    return h_BTH


@operator("rnn_backward")
def _rnn_backward(grad_h_BTH: Tensor, weight_HH: Tensor, h_BH: Tensor, h_BTH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of (x, weight, h)."""
    grad_x_BTH = 1 - h_BTH * h_BTH  # the derivative of tanh; the loop multiplies it by the gradient of h in place
    grad_hs, grad_xs = grad_h_BTH.unbind(1), grad_x_BTH.unbind(1)
    grad_BH = grad_hs[-1].clone()
    for t in reversed(range(len(grad_xs))):
        grad_xs[t].mul_(grad_BH)
        if t > 0:
            torch.addmm(grad_hs[t - 1], grad_xs[t], weight_HH, out=grad_BH)
    torch.mm(grad_xs[0], weight_HH, out=grad_BH)
    before_BTH = torch.cat([h_BH.unsqueeze(1), h_BTH[:, :-1]], dim=1)
    grad_weight_HH = torch.empty_like(weight_HH)
    torch.mm(grad_x_BTH.flatten(0, 1).t(), before_BTH.flatten(0, 1), out=grad_weight_HH)
    return grad_x_BTH, grad_weight_HH, grad_BH


@torch.library.register_fake("lmzoo::rnn")
def _rnn_forward_fake(x_BTH: Tensor, weight_HH: Tensor, h_BH: Tensor) -> Tensor:
    return torch.empty_like(x_BTH)


@torch.library.register_fake("lmzoo::rnn_backward")
def _rnn_backward_fake(
    grad_h_BTH: Tensor, weight_HH: Tensor, h_BH: Tensor, h_BTH: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(h_BTH), torch.empty_like(weight_HH), torch.empty_like(h_BH)


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:], output)


def _backward(ctx: Any, grad_h_BTH: Tensor) -> tuple[Tensor, ...]:
    return torch.ops.lmzoo.rnn_backward(grad_h_BTH.contiguous(), *ctx.saved_tensors)


torch.library.register_autograd("lmzoo::rnn", _backward, setup_context=_save_for_backward)


# torch's FLOP counter does not look into a custom operator: these functions declare its matrix products.


@register_flop_formula(torch.ops.lmzoo.rnn)
def _rnn_forward_flops(x_shape: list[int], *_: object, **__: object) -> int:
    B, T, H = x_shape
    return 2 * T * B * H * H


@register_flop_formula(torch.ops.lmzoo.rnn_backward)
def _rnn_backward_flops(grad_h_shape: list[int], *_: object, **__: object) -> int:
    """Twice the forward pass: one product for the gradient of the state, one for the gradient of the weight."""
    B, T, H = grad_h_shape
    return 2 * (2 * T * B * H * H)
