"""Dropless mixture of experts (MoE): each token goes through the K feed-forward layers chosen for it.

    y_n = sum over k of  weights[n, k] * down_e(combine(gate_e(x_n), up_e(x_n))),   e = indices[n, k]

(Shazeer et al. 2017, arXiv 1701.06538; without a capacity as in MegaBlocks, Gale et al. 2022, arXiv 2211.15841.) No
expert has a capacity, so the output for a token does not depend on the other tokens of the batch. `combine` is
`silu(gate) * up` in most models, which is SwiGLU; the linear maps have biases in some. Plain experts have no gate:
`combine` gets the up projection alone.

`naive_expert_mlp` is this definition, token by token. `grouped_expert_mlp` sorts the (token, choice) pairs by expert
and computes one product per expert that has rows. `gathered_expert_mlp` picks the weights of the chosen experts: a
compiler fuses that into loops which read these weights once, where the grouped form is an opaque operator.

Legend: N tokens, D model width, K choices per token, E experts, F hidden width of an expert; in `up_EFD`, F stands for
2 F, the gate followed by the up projection. Inside the grouped form R = N * K rows, and G the width of an output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lmzoo.ops.counting import counted_as
from lmzoo.ops.operator import operator

Combine = Callable[..., Tensor]  # (gate, up) or (up), (..., F) each -> inner features (..., F)


class Biases(NamedTuple):
    """The biases of all experts."""

    up_EF: Tensor  # F stands for 2 F, as in `up_EFD`
    down_ED: Tensor


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Returns `silu(gate) * up` (Shazeer 2020, arXiv 2002.05202)."""
    return F.silu(gate) * up


def naive_expert_mlp(
    x_ND: Tensor,
    indices_NK: Tensor,
    weights_NK: Tensor,
    up_EFD: Tensor,
    down_EDF: Tensor,
    combine: Combine = swiglu,
    biases: Biases | None = None,
) -> Tensor:
    """The definition, one token after another; arguments and result as in `expert_mlp`."""
    ys = []
    for x_D, chosen, weights_K in zip(x_ND, indices_NK.tolist(), weights_NK, strict=True):
        y_D = torch.zeros_like(x_D)
        for e, weight in zip(chosen, weights_K, strict=True):
            up_bias_F, down_bias_D = (None, None) if biases is None else (biases.up_EF[e], biases.down_ED[e])
            parts = F.linear(x_D, up_EFD[e], up_bias_F).chunk(parts_of(up_EFD, down_EDF))
            y_D = y_D + weight * F.linear(combine(*parts), down_EDF[e], down_bias_D)
        ys.append(y_D)
    return torch.stack(ys).to(x_ND.dtype) if ys else torch.zeros_like(x_ND)


def grouped_expert_mlp(
    x_ND: Tensor,
    indices_NK: Tensor,
    weights_NK: Tensor,
    up_EFD: Tensor,
    down_EDF: Tensor,
    combine: Combine = swiglu,
    biases: Biases | None = None,
) -> Tensor:
    """The fast form; arguments and result as in `expert_mlp`."""
    experts_R, order_R = indices_NK.flatten().sort(stable=True)
    ends_E = torch.searchsorted(experts_R, torch.arange(len(up_EFD), device=x_ND.device), right=True)
    # Each row is read and written once, so that no sum depends on the order in which threads finish.
    rows_RD = x_ND.repeat_interleave(indices_NK.shape[1], dim=0).index_select(0, order_R)
    inner_RF = _grouped_linear(rows_RD, up_EFD, ends_E)
    if biases is not None:
        inner_RF = inner_RF + biases.up_EF[experts_R].to(inner_RF.dtype)
    y_RD = _grouped_linear(combine(*inner_RF.chunk(parts_of(up_EFD, down_EDF), dim=-1)), down_EDF, ends_E)
    if biases is not None:
        y_RD = y_RD + biases.down_ED[experts_R].to(y_RD.dtype)
    y_NKD = torch.zeros_like(y_RD).index_copy(0, order_R, y_RD).unflatten(0, indices_NK.shape)
    return _weighted_sum(y_NKD, weights_NK).to(x_ND.dtype)


def gathered_expert_mlp(
    x_ND: Tensor,
    indices_NK: Tensor,
    weights_NK: Tensor,
    up_EFD: Tensor,
    down_EDF: Tensor,
    combine: Combine = swiglu,
    biases: Biases | None = None,
) -> Tensor:
    """The form for a few compiled tokens; arguments and result as in `expert_mlp`.

    In eager mode it copies the weights of K experts for every token.
    """
    inner_NKF = torch.einsum("nd,nkfd->nkf", x_ND, up_EFD[indices_NK])
    if biases is not None:
        inner_NKF = inner_NKF + biases.up_EF[indices_NK].to(inner_NKF.dtype)
    inner_NKF = combine(*inner_NKF.chunk(parts_of(up_EFD, down_EDF), dim=-1))
    y_NKD = torch.einsum("nkf,nkdf->nkd", inner_NKF, down_EDF[indices_NK])
    if biases is not None:
        y_NKD = y_NKD + biases.down_ED[indices_NK].to(y_NKD.dtype)
    return _weighted_sum(y_NKD, weights_NK).to(x_ND.dtype)


def expert_mlp(
    x_ND: Tensor,
    indices_NK: Tensor,
    weights_NK: Tensor,
    up_EFD: Tensor,
    down_EDF: Tensor,
    combine: Combine = swiglu,
    biases: Biases | None = None,
) -> Tensor:
    """Computes the weighted sum of the chosen experts of each token, by the fastest form that fits.

    Args:
        x_ND: the tokens.
        indices_NK: the experts chosen for each token, int64, each at most once per token.
        weights_NK: their weights, as the router gives them.
        up_EFD: gate and up projection in one, (E, 2 F, D), or for plain experts the up projection alone, (E, F, D).
        down_EDF: the down projections.
        combine: maps gate and up projection, or the up projection alone, to the inner features, elementwise.
        biases: of gate and up projection, (E, 2 F), and of the down projections, (E, D).

    Returns:
        `y_ND` in the dtype of `x_ND`. Products follow autocast, as a linear layer does. Counts as 6 K F D FLOPs per
        token, three products of F times D for each choice, or two thirds of that for plain experts.
    """
    N, K = indices_NK.shape
    E, D, width = down_EDF.shape
    form = gathered_expert_mlp if torch.compiler.is_compiling() and N * K <= E else grouped_expert_mlp
    with counted_as(2 * (parts_of(up_EFD, down_EDF) + 1) * N * K * width * D):
        return form(x_ND, indices_NK, weights_NK, up_EFD, down_EDF, combine, biases)


def parts_of(up_EFD: Tensor, down_EDF: Tensor) -> int:
    """Returns 2 for gated experts, whose first weight is gate and up projection, and 1 for plain ones."""
    return up_EFD.shape[1] // down_EDF.shape[2]


def _weighted_sum(y_NKD: Tensor, weights_NK: Tensor) -> Tensor:
    return (y_NKD * weights_NK[..., None]).sum(dim=1)


def _grouped_linear(rows_RD: Tensor, weight_EGD: Tensor, ends_E: Tensor) -> Tensor:
    """Multiply each row by the weight of its expert: rows `ends_E[e - 1]` to `ends_E[e]` have expert e. -> (R, G)"""
    device = rows_RD.device.type
    if torch.is_autocast_enabled(device) and rows_RD.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        rows_RD, weight_EGD = rows_RD.to(dtype), weight_EGD.to(dtype)
    return torch.ops.lmzoo.grouped_linear(rows_RD, weight_EGD, ends_E)


# An opaque custom operator, because the number of rows of an expert depends on the data and torch.compile cannot trace
# it. Products are written into preallocated tensors, whose dtype autocast does not change.


@operator("grouped_linear")
def _linear_forward(rows_RD: Tensor, weight_EGD: Tensor, ends_E: Tensor) -> Tensor:
    y_RG = rows_RD.new_empty(rows_RD.shape[0], weight_EGD.shape[1])
    for e, rows in _groups(ends_E):
        torch.mm(rows_RD[rows], weight_EGD[e].t(), out=y_RG[rows])
    return y_RG


@operator("grouped_linear_backward")
def _linear_backward(grad_y_RG: Tensor, rows_RD: Tensor, weight_EGD: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of rows and weight."""
    grad_rows_RD, grad_weight_EGD = torch.empty_like(rows_RD), torch.zeros_like(weight_EGD)
    for e, rows in _groups(ends_E):
        torch.mm(grad_y_RG[rows], weight_EGD[e], out=grad_rows_RD[rows])
        torch.mm(grad_y_RG[rows].t(), rows_RD[rows], out=grad_weight_EGD[e])
    return grad_rows_RD, grad_weight_EGD


def _groups(ends_E: Tensor) -> list[tuple[int, slice]]:
    """Returns (expert, its rows) for every expert that has rows."""
    ends = ends_E.tolist()
    return [(e, slice(start, end)) for e, (start, end) in enumerate(zip([0, *ends], ends, strict=False)) if start < end]


@torch.library.register_fake("lmzoo::grouped_linear")
def _linear_forward_fake(rows_RD: Tensor, weight_EGD: Tensor, ends_E: Tensor) -> Tensor:
    return rows_RD.new_empty(rows_RD.shape[0], weight_EGD.shape[1])


@torch.library.register_fake("lmzoo::grouped_linear_backward")
def _linear_backward_fake(
    grad_y_RG: Tensor, rows_RD: Tensor, weight_EGD: Tensor, ends_E: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(rows_RD), torch.empty_like(weight_EGD)


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_y_RG: Tensor) -> tuple[Tensor, Tensor, None]:
    return *torch.ops.lmzoo.grouped_linear_backward(grad_y_RG.contiguous(), *ctx.saved_tensors), None


torch.library.register_autograd("lmzoo::grouped_linear", _backward, setup_context=_save_for_backward)


# torch's FLOP counter does not look into a custom operator.


@register_flop_formula(torch.ops.lmzoo.grouped_linear)
def _linear_forward_flops(rows_shape: list[int], weight_shape: list[int], *_: object, **__: object) -> int:
    return 2 * rows_shape[0] * weight_shape[1] * weight_shape[2]


@register_flop_formula(torch.ops.lmzoo.grouped_linear_backward)
def _linear_backward_flops(
    grad_y_shape: list[int], rows_shape: list[int], weight_shape: list[int], *_: object, **__: object
) -> int:
    """Two products of the same size: the gradients of the rows and of the weight."""
    return 4 * rows_shape[0] * weight_shape[1] * weight_shape[2]
