"""The recurrence of the gated recurrent unit (Cho et al. 2014, arXiv 1406.1078), in the form of torch.nn.GRU and cuDNN.

    r, z = sigmoid(gates_x_t[r, z] + W_hh[r, z] h_{t-1})            (reset and update gate)
    n    = tanh(gates_x_t[n] + r * (W_hh[n] h_{t-1} + b_n))
    h_t  = (1 - z) * n + z * h_{t-1}

The reset gate multiplies the product W_hh[n] h; in the paper it multiplies h before the product, which needs two
products one after another in each step. `gates_x` is the part of the gates that comes from the input, with its biases:
the caller computes it for all times in one matrix product. `naive_gru` is the definition. `fused_gru` saves the
activations and has a hand-written backward pass: what is outside the recurrence is computed for all times at once.

Shapes: B batch, T time, H hidden width, G = 3H the gates r, z, n side by side, as torch.nn.GRU stores them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.operator import operator
from lmzoo.ops.precision import wide_dtype, without_autocast


def naive_gru(
    gates_x_BTG: Tensor, weight_hh_GH: Tensor, bias_n_H: Tensor, h_BH: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `gru_scan`."""
    gates_x, weight_GH, bias_n, h_BH = _wide_inputs(gates_x_BTG, weight_hh_GH, bias_n_H, h_BH)
    H = h_BH.shape[1]
    hs = []
    with without_autocast(gates_x):
        for gates_x_BG in gates_x.unbind(1):
            gates_h_BG = h_BH @ weight_GH.t()
            r, z = torch.sigmoid(gates_x_BG[:, : 2 * H] + gates_h_BG[:, : 2 * H]).chunk(2, dim=-1)
            n = torch.tanh(gates_x_BG[:, 2 * H :] + r * (gates_h_BG[:, 2 * H :] + bias_n))
            h_BH = (1 - z) * n + z * h_BH
            hs.append(h_BH)
    return torch.stack(hs, dim=1).to(gates_x_BTG.dtype), h_BH


def fused_gru(
    gates_x_BTG: Tensor, weight_hh_GH: Tensor, bias_n_H: Tensor, h_BH: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The fast form, with a hand-written backward pass; arguments and results as in `gru_scan`."""
    inputs = _wide_inputs(gates_x_BTG, weight_hh_GH, bias_n_H, h_BH)
    h_BTH, _, _, _ = torch.ops.lmzoo.gru(*(x.contiguous() for x in inputs))
    return h_BTH.to(gates_x_BTG.dtype), h_BTH[:, -1].clone()


def gru_scan(
    gates_x_BTG: Tensor, weight_hh_GH: Tensor, bias_n_H: Tensor, h_BH: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The GRU's recurrence, by the fastest form that fits.

    Args:
        gates_x_BTG: the part of the gates r, z, n from the input, shape (B, T, 3H), biases included.
        weight_hh_GH: the recurrent weight, shape (3H, H).
        bias_n_H: the bias of the recurrent part of n, which the reset gate multiplies.
        h_BH: the hidden state to start from, or None for zeros.

    Returns:
        `y_BTH`, the hidden state after every token, in the dtype of `gates_x_BTG`; and the last `h_BH`, in float32
        (float64 for float64 input): small changes to it do not survive bfloat16.
    """
    scan = dispatch(gates_x_BTG.shape[1], naive_gru, fused_gru, shortest=2)
    return scan(gates_x_BTG, weight_hh_GH, bias_n_H, h_BH)


def _wide_inputs(gates_x: Tensor, weight: Tensor, bias: Tensor, h_BH: Tensor | None) -> tuple[Tensor, ...]:
    """Converts all inputs to float32 or wider; a missing state becomes zeros."""
    dtype = wide_dtype(gates_x.dtype)
    h_BH = gates_x.new_zeros(gates_x.shape[0], weight.shape[1]) if h_BH is None else h_BH
    return tuple(x.to(dtype) for x in (gates_x, weight, bias, h_BH))


# The fast form is an opaque custom operator, so that torch.compile captures one node instead of unrolling the loop.
# Inside, every product writes into an existing tensor (`out=` or in place), whose dtype autocast does not change.


@operator("gru")
def _gru_forward(
    gates_x_BTG: Tensor, weight_GH: Tensor, bias_n_H: Tensor, h_BH: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-> h (B, T, H); for backward: r and z (B, T, 2H), n, and the recurrent part of n before the reset gate."""
    B, T, _ = gates_x_BTG.shape
    H = weight_GH.shape[1]
    rz_BTG = gates_x_BTG.new_empty(B, T, 2 * H)
    h_BTH, n_BTH, inner_BTH = (gates_x_BTG.new_empty(B, T, H) for _ in range(3))
    weights_rz, weight_n = weight_GH[: 2 * H].t(), weight_GH[2 * H :].t()
    gates_rz, gates_n = (x.unbind(1) for x in gates_x_BTG.split([2 * H, H], dim=-1))
    rs, zs = (x.unbind(1) for x in rz_BTG.chunk(2, dim=-1))
    rz, hs, ns, inner = (x.unbind(1) for x in (rz_BTG, h_BTH, n_BTH, inner_BTH))
    h = h_BH
    for t in range(T):
        torch.addmm(gates_rz[t], h, weights_rz, out=rz[t]).sigmoid_()
        torch.addmm(bias_n_H, h, weight_n, out=inner[t])
        torch.addcmul(gates_n[t], rs[t], inner[t], out=ns[t]).tanh_()
        h = torch.lerp(ns[t], h, zs[t], out=hs[t])
    return h_BTH, rz_BTG, n_BTH, inner_BTH


@operator("gru_backward")
def _gru_backward(
    grad_h_BTH: Tensor,
    weight_GH: Tensor,
    h_BH: Tensor,
    h_BTH: Tensor,
    rz_BTG: Tensor,
    n_BTH: Tensor,
    inner_BTH: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of (gates_x, weight, bias_n, h)."""
    T = h_BTH.shape[1]
    r_BTH, z_BTH = rz_BTG.chunk(2, dim=-1)
    before_BTH = torch.cat([h_BH.unsqueeze(1), h_BTH[:, :-1]], dim=1)
    # The derivatives of h with respect to the inputs of n and z, and of n's input with respect to the input of r; the
    # loop backward in time multiplies them by the gradient of h.
    to_n = (1 - z_BTH) * (1 - n_BTH * n_BTH)
    to_z = (before_BTH - n_BTH) * z_BTH * (1 - z_BTH)
    to_r = inner_BTH * r_BTH * (1 - r_BTH)
    grad_gates_BTG = torch.cat([to_r * to_n, to_z, to_n], dim=-1)  # of the gates' inputs
    grad_inner_BTG = torch.cat([grad_gates_BTG[..., : -n_BTH.shape[-1]], to_n * r_BTH], dim=-1)  # of W_hh h
    grad = torch.zeros_like(h_BH)
    grad_hs, gates, inner = grad_h_BTH.unbind(1), grad_gates_BTG.unbind(1), grad_inner_BTG.unbind(1)
    zs = z_BTH.unbind(1)
    for t in reversed(range(T)):
        grad.add_(grad_hs[t])
        thrice_BG = grad.repeat(1, 3)
        gates[t].mul_(thrice_BG)
        inner[t].mul_(thrice_BG)
        grad.mul_(zs[t])
        grad = torch.addmm(grad, inner[t], weight_GH, out=torch.empty_like(grad))
    grad_weight_GH = torch.empty_like(weight_GH)
    torch.mm(grad_inner_BTG.flatten(0, 1).t(), before_BTH.flatten(0, 1), out=grad_weight_GH)
    grad_bias_H = grad_inner_BTG[..., -n_BTH.shape[-1] :].sum((0, 1))
    return grad_gates_BTG, grad_weight_GH, grad_bias_H, grad


@torch.library.register_fake("lmzoo::gru")
def _gru_forward_fake(
    gates_x_BTG: Tensor, weight_GH: Tensor, bias_n_H: Tensor, h_BH: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, T, _ = gates_x_BTG.shape
    H = weight_GH.shape[1]
    h, n, inner = (gates_x_BTG.new_empty(B, T, H) for _ in range(3))
    return h, gates_x_BTG.new_empty(B, T, 2 * H), n, inner


@torch.library.register_fake("lmzoo::gru_backward")
def _gru_backward_fake(
    grad_h_BTH: Tensor,
    weight_GH: Tensor,
    h_BH: Tensor,
    h_BTH: Tensor,
    rz_BTG: Tensor,
    n_BTH: Tensor,
    inner_BTH: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, T, H = h_BTH.shape
    return h_BTH.new_empty(B, T, 3 * H), torch.empty_like(weight_GH), h_BTH.new_empty(H), torch.empty_like(h_BH)


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(inputs[1], inputs[3], *output)
    ctx.set_materialize_grads(False)  # otherwise autograd allocates zeros as large as the saved activations


def _backward(ctx: Any, grad_h: Tensor | None, *_: Tensor | None) -> tuple[Tensor, ...]:
    weight_GH, h_BH, h_BTH, *rest = ctx.saved_tensors  # read once: activation checkpointing allows no more
    grad_h_BTH = torch.zeros_like(h_BTH) if grad_h is None else grad_h.contiguous()
    return torch.ops.lmzoo.gru_backward(grad_h_BTH, weight_GH, h_BH, h_BTH, *rest)


torch.library.register_autograd("lmzoo::gru", _backward, setup_context=_save_for_backward)


# torch's FLOP counter does not look into a custom operator: these functions declare its matrix products.


@register_flop_formula(torch.ops.lmzoo.gru)
def _gru_forward_flops(gates_x_shape: list[int], weight_shape: list[int], *_: object, **__: object) -> int:
    B, T, G = gates_x_shape
    return 2 * T * B * G * weight_shape[1]


@register_flop_formula(torch.ops.lmzoo.gru_backward)
def _gru_backward_flops(grad_h_shape: list[int], weight_shape: list[int], *_: object, **__: object) -> int:
    """Twice the forward pass: one product for the gradient of the state, one for the gradient of the weight."""
    B, T, H = grad_h_shape
    return 2 * (2 * T * B * H * weight_shape[0])
