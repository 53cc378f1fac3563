"""Depthwise causal convolution over time: y_t[d] = bias[d] + sum_k weight[d, k] * x_{t-W+1+k}[d].

The short convolution before Mamba's scan (Gu & Dao 2023, arXiv 2312.00752, section 3.4), used by many later models. The
last column of `weight_DW` multiplies the current token, as in `torch.nn.Conv1d`. The decoding state is the tail: the
last W - 1 inputs.

`naive_causal_conv1d` is the definition as a loop over time. `shifted_causal_conv1d` adds up W shifted products, which
on a CPU is up to three times faster than `torch.nn.functional.conv1d` with groups (and needs no transposed copy).

Shapes: B batch, T time, D channels, W width of the window.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lmzoo.ops.counting import counted_as
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.operator import operator

SHORTEST_SHIFTED = 3  # for shorter sequences the loop needs fewer calls


def naive_causal_conv1d(
    x_BTD: Tensor, weight_DW: Tensor, bias_D: Tensor | None = None, tail_BWD: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `causal_conv1d`."""
    width = weight_DW.shape[1]
    padded_BTD, weight_DW = _prepend_tail(x_BTD, width, tail_BWD), weight_DW.to(x_BTD.dtype)
    windows = padded_BTD.unfold(1, width, 1).unbind(1)  # (B, D, W) for each step
    y_BTD = torch.stack([(window_BDW * weight_DW).sum(-1) for window_BDW in windows], dim=1)
    return (y_BTD if bias_D is None else y_BTD + bias_D.to(x_BTD.dtype)), padded_BTD[:, x_BTD.shape[1] :]


def shifted_causal_conv1d(
    x_BTD: Tensor, weight_DW: Tensor, bias_D: Tensor | None = None, tail_BWD: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The fast form, one pass per column of the weight; arguments and results as in `causal_conv1d`."""
    padded_BTD = _prepend_tail(x_BTD, weight_DW.shape[1], tail_BWD)
    # Under autocast the input may be bfloat16 and the weights float32; the operator needs one dtype.
    y_BTD = torch.ops.lmzoo.causal_conv1d(padded_BTD, weight_DW.t().to(x_BTD.dtype).contiguous())
    return (y_BTD if bias_D is None else y_BTD + bias_D.to(x_BTD.dtype)), padded_BTD[:, x_BTD.shape[1] :]


def causal_conv1d(
    x_BTD: Tensor, weight_DW: Tensor, bias_D: Tensor | None = None, tail_BWD: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Depthwise causal convolution, by the fastest form that fits.

    Args:
        x_BTD: the input.
        weight_DW: one filter per channel; its last column multiplies the current token.
        bias_D: added to every output, or None.
        tail_BWD: the W - 1 inputs before `x_BTD`, shape (B, W - 1, D), or None for zeros.

    Returns:
        `y_BTD`, and the tail (B, W - 1, D) to continue from. The tail is a copy, so it does not keep the input in
        memory.
    """
    B, T, D = x_BTD.shape
    convolve = dispatch(T, naive_causal_conv1d, shifted_causal_conv1d, shortest=SHORTEST_SHIFTED)
    with counted_as(2 * B * T * D * weight_DW.shape[1]):
        y_BTD, tail = convolve(x_BTD, weight_DW, bias_D, tail_BWD)
    return y_BTD, tail.clone()


def _prepend_tail(x_BTD: Tensor, width: int, tail_BWD: Tensor | None) -> Tensor:
    if tail_BWD is None:
        return F.pad(x_BTD, (0, 0, width - 1, 0))
    return torch.cat([tail_BWD.to(x_BTD.dtype), x_BTD], dim=1)


# A custom operator, because autograd through the shifted slices pads and adds a full gradient for each of them.


@operator("causal_conv1d")
def _conv_forward(padded_BTD: Tensor, weight_WD: Tensor) -> Tensor:
    """Convolve the padded input (B, W - 1 + T, D) to (B, T, D)."""
    width = weight_WD.shape[0]
    T = padded_BTD.shape[1] - width + 1
    y_BTD = padded_BTD[:, :T] * weight_WD[0]
    for k in range(1, width):
        y_BTD.addcmul_(padded_BTD[:, k : k + T], weight_WD[k])
    return y_BTD


@operator("causal_conv1d_backward")
def _conv_backward(grad_y_BTD: Tensor, padded_BTD: Tensor, weight_WD: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the padded input and of the weight."""
    T = grad_y_BTD.shape[1]
    grad_padded_BTD = torch.zeros_like(padded_BTD)
    grad_weight_WD = torch.empty_like(weight_WD)
    for k in range(weight_WD.shape[0]):
        grad_padded_BTD[:, k : k + T].addcmul_(grad_y_BTD, weight_WD[k])
        grad_weight_WD[k] = (padded_BTD[:, k : k + T] * grad_y_BTD).sum((0, 1))
    return grad_padded_BTD, grad_weight_WD


@torch.library.register_fake("lmzoo::causal_conv1d")
def _conv_forward_fake(padded_BTD: Tensor, weight_WD: Tensor) -> Tensor:
    B, padded_T, D = padded_BTD.shape
    return padded_BTD.new_empty(B, padded_T - weight_WD.shape[0] + 1, D)


@torch.library.register_fake("lmzoo::causal_conv1d_backward")
def _conv_backward_fake(grad_y_BTD: Tensor, padded_BTD: Tensor, weight_WD: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(padded_BTD), torch.empty_like(weight_WD)


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_y_BTD: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.lmzoo.causal_conv1d_backward(grad_y_BTD.contiguous(), *ctx.saved_tensors)


torch.library.register_autograd("lmzoo::causal_conv1d", _backward, setup_context=_save_for_backward)


# torch's FLOP counter does not look into a custom operator: these functions declare the FLOPs of the definition.


@register_flop_formula(torch.ops.lmzoo.causal_conv1d)
def _conv_forward_flops(padded_shape: list[int], weight_shape: list[int], *_: object, **__: object) -> int:
    B, padded_T, D = padded_shape
    width = weight_shape[0]
    return 2 * B * (padded_T - width + 1) * D * width


@register_flop_formula(torch.ops.lmzoo.causal_conv1d_backward)
def _conv_backward_flops(
    grad_y_shape: list[int], padded_shape: list[int], weight_shape: list[int], *_: object, **__: object
) -> int:
    """Twice the forward pass: the gradients of the input and of the weight."""
    B, T, D = grad_y_shape
    return 2 * (2 * B * T * D * weight_shape[0])
