"""The LSTM's recurrence (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    i, f, g, o = gates_x_t + W_hh h_{t-1}         (in this order, as torch.nn.LSTM stores them)
    c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
    h_t = sigmoid(o) * tanh(c_t)

`gates_x` is the part of the gates that comes from the input, with the biases: it needs no recurrence, so the caller
computes it for all times in one matrix product. `naive_lstm` is the definition. `fused_lstm` saves the activations and
has a hand-written backward pass: everything outside the recurrence is computed for all times at once, and the gradient
of the weight is one matrix product at the end.

Shapes: B batch, T time, H hidden width, 4H the four gates side by side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.operator import operator
from lmzoo.ops.precision import without_autocast

SHORTEST_FUSED = 3  # for shorter sequences the loop needs fewer calls

HiddenCell = tuple[Tensor, Tensor]  # h_BH, c_BH


def naive_lstm(gates_x_BTG: Tensor, weight_hh_GH: Tensor, state: HiddenCell | None = None) -> tuple[Tensor, HiddenCell]:
    """The definition, one step after another; arguments and results as in `lstm_scan`."""
    h_BH, c_BH = _initial_state(gates_x_BTG, weight_hh_GH, state)
    weight_hh_GH = weight_hh_GH.to(c_BH.dtype)
    hs = []
    for gates_x_BG in gates_x_BTG.to(c_BH.dtype).unbind(1):
        i, f, g, o = (gates_x_BG + _matmul(h_BH, weight_hh_GH.t())).chunk(4, dim=-1)
        c_BH = torch.sigmoid(f) * c_BH + torch.sigmoid(i) * torch.tanh(g)
        h_BH = torch.sigmoid(o) * torch.tanh(c_BH)
        hs.append(h_BH)
    return torch.stack(hs, dim=1).to(gates_x_BTG.dtype), (h_BH, c_BH)


def fused_lstm(gates_x_BTG: Tensor, weight_hh_GH: Tensor, state: HiddenCell | None = None) -> tuple[Tensor, HiddenCell]:
    """The fast form, with a hand-written backward pass; arguments and results as in `lstm_scan`."""
    h_BH, c_BH = _initial_state(gates_x_BTG, weight_hh_GH, state)
    dtype = c_BH.dtype
    h_BTH, c_BH, _, _, _, _ = torch.ops.lmzoo.lstm(
        gates_x_BTG.to(dtype).contiguous(), weight_hh_GH.to(dtype).contiguous(), h_BH.contiguous(), c_BH.contiguous()
    )
    return h_BTH.to(gates_x_BTG.dtype), (h_BTH[:, -1].clone(), c_BH)


def lstm_scan(gates_x_BTG: Tensor, weight_hh_GH: Tensor, state: HiddenCell | None = None) -> tuple[Tensor, HiddenCell]:
    """The LSTM's recurrence, by the fastest form that fits.

    Args:
        gates_x_BTG: the part of the gates i, f, g, o from the input, shape (B, T, 4H), biases included.
        weight_hh_GH: the recurrent weight, shape (4H, H).
        state: `(h_BH, c_BH)` to start from, or None for zeros.

    Returns:
        `y_BTH`, the hidden state after every token, in the dtype of `gates_x_BTG`; and the last `(h_BH, c_BH)`, in
        float32 (float64 for float64 input): small changes to the cell do not survive bfloat16.
    """
    scan = dispatch(gates_x_BTG.shape[1], naive_lstm, fused_lstm, shortest=SHORTEST_FUSED)
    return scan(gates_x_BTG, weight_hh_GH, state)


def _initial_state(gates_x_BTG: Tensor, weight_hh_GH: Tensor, state: HiddenCell | None) -> HiddenCell:
    dtype = torch.float64 if gates_x_BTG.dtype == torch.float64 else torch.float32
    if state is None:
        zeros_BH = gates_x_BTG.new_zeros(gates_x_BTG.shape[0], weight_hh_GH.shape[1], dtype=dtype)
        return zeros_BH, zeros_BH
    return state[0].to(dtype), state[1].to(dtype)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    with without_autocast(a):
        return a @ b


# The fast form is an opaque custom operator, so that torch.compile captures one node instead of unrolling the loop.
# Inside, every product writes into an existing tensor (`out=` or in place), whose dtype autocast does not change.


@operator("lstm")
def _lstm_forward(
    gates_x_BTG: Tensor, weight_GH: Tensor, h_BH: Tensor, c_BH: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """-> h (B, T, H), the last c (B, H); for backward: the sigmoids (B, T, 4H), tanh(g), c before, tanh(c) after."""
    B, T, _ = gates_x_BTG.shape
    H = weight_GH.shape[1]
    gates_BTG = torch.empty_like(gates_x_BTG)
    h_BTH, g_BTH, c_before_BTH, tanh_c_BTH = (gates_x_BTG.new_empty(B, T, H) for _ in range(4))
    weight_HG = weight_GH.t()
    h = h_BH
    last_c_BH = torch.empty_like(c_BH)
    # One unbind is cheaper than indexing at each step.
    i, f, raw_g, o = (gate_BTH.unbind(1) for gate_BTH in gates_BTG.split(H, dim=-1))
    gates_x, gates, hs, g, tanh_c = (x.unbind(1) for x in (gates_x_BTG, gates_BTG, h_BTH, g_BTH, tanh_c_BTH))
    cs = [*c_before_BTH.unbind(1), last_c_BH]
    cs[0].copy_(c_BH)
    for t in range(T):
        torch.addmm(gates_x[t], h, weight_HG, out=gates[t])
        torch.tanh(raw_g[t], out=g[t])
        gates[t].sigmoid_()  # also of the unused g: one pass over whole rows is faster than two over parts
        torch.mul(f[t], cs[t], out=cs[t + 1]).addcmul_(i[t], g[t])
        torch.tanh(cs[t + 1], out=tanh_c[t])
        h = torch.mul(o[t], tanh_c[t], out=hs[t])
    return h_BTH, last_c_BH, gates_BTG, g_BTH, c_before_BTH, tanh_c_BTH


@operator("lstm_backward")
def _lstm_backward(
    grad_h_BTH: Tensor,
    grad_c_BH: Tensor,
    weight_GH: Tensor,
    h_BH: Tensor,
    h_BTH: Tensor,
    gates_BTG: Tensor,
    g_BTH: Tensor,
    c_before_BTH: Tensor,
    tanh_c_BTH: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of (gates_x, weight, h, c)."""
    B, T, H = h_BTH.shape
    i, f, _, o = gates_BTG.split(H, dim=-1)
    # Derivatives of c with respect to the inputs of the gates i, f, g, and of h for o. They are computed for all times
    # first; the loop backward in time turns them into gradients in place. s * (1 - s) * x is written as s * x - s * (s
    # * x), without copies.
    grad_gates_BT4H = gates_BTG.new_empty(B, T, 4, H)
    for k, (gate, other) in {0: (i, g_BTH), 1: (f, c_before_BTH), 3: (o, tanh_c_BTH)}.items():
        derivative = torch.mul(gate, other, out=grad_gates_BT4H[:, :, k])
        derivative.addcmul_(gate, derivative, value=-1)
    derivative = torch.mul(g_BTH, g_BTH, out=grad_gates_BT4H[:, :, 2])
    torch.addcmul(i, i, derivative, value=-1, out=derivative)
    h_to_c_BTH = tanh_c_BTH * tanh_c_BTH
    torch.addcmul(o, o, h_to_c_BTH, value=-1, out=h_to_c_BTH)
    grad_gates_BTG = grad_gates_BT4H.view(B, T, 4 * H)
    h_to_c, forget = h_to_c_BTH.unbind(1), f.unbind(1)
    through_c, through_h = grad_gates_BT4H[:, :, :3].unbind(1), grad_gates_BT4H[:, :, 3].unbind(1)
    grad_gates, grad_hs = grad_gates_BTG.unbind(1), grad_h_BTH.unbind(1)
    grad_h, grad_c = grad_hs[-1].clone(), grad_c_BH.clone()
    for t in reversed(range(T)):
        grad_c.addcmul_(grad_h, h_to_c[t])
        through_c[t].mul_(grad_c.unsqueeze(1))
        through_h[t].mul_(grad_h)
        grad_c.mul_(forget[t])
        if t > 0:
            torch.addmm(grad_hs[t - 1], grad_gates[t], weight_GH, out=grad_h)
    torch.mm(grad_gates[0], weight_GH, out=grad_h)
    h_before_BTH = torch.cat([h_BH.unsqueeze(1), h_BTH[:, :-1]], dim=1)
    grad_weight_GH = torch.empty_like(weight_GH)
    torch.mm(grad_gates_BTG.flatten(0, 1).t(), h_before_BTH.flatten(0, 1), out=grad_weight_GH)
    return grad_gates_BTG, grad_weight_GH, grad_h, grad_c


@torch.library.register_fake("lmzoo::lstm")
def _lstm_forward_fake(
    gates_x_BTG: Tensor, weight_GH: Tensor, h_BH: Tensor, c_BH: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    h, g, c_before, tanh_c = (gates_x_BTG.new_empty(*gates_x_BTG.shape[:2], weight_GH.shape[1]) for _ in range(4))
    return h, torch.empty_like(c_BH), torch.empty_like(gates_x_BTG), g, c_before, tanh_c


@torch.library.register_fake("lmzoo::lstm_backward")
def _lstm_backward_fake(
    grad_h_BTH: Tensor,
    grad_c_BH: Tensor,
    weight_GH: Tensor,
    h_BH: Tensor,
    h_BTH: Tensor,
    gates_BTG: Tensor,
    g_BTH: Tensor,
    c_before_BTH: Tensor,
    tanh_c_BTH: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(gates_BTG),
        torch.empty_like(weight_GH),
        torch.empty_like(grad_c_BH),
        torch.empty_like(grad_c_BH),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    h_BTH, _, *activations = output
    ctx.save_for_backward(inputs[1], inputs[2], h_BTH, *activations)
    ctx.set_materialize_grads(False)  # otherwise autograd allocates zeros as large as the saved activations


def _backward(ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None, *_: Tensor | None) -> tuple[Tensor, ...]:
    weight_GH, h_BH, h_BTH, *rest = ctx.saved_tensors
    grad_h_BTH = torch.zeros_like(h_BTH) if grad_h is None else grad_h.contiguous()
    grad_c_BH = torch.zeros_like(h_BH) if grad_c is None else grad_c.contiguous()
    return torch.ops.lmzoo.lstm_backward(grad_h_BTH, grad_c_BH, weight_GH, h_BH, h_BTH, *rest)


torch.library.register_autograd("lmzoo::lstm", _backward, setup_context=_save_for_backward)


# torch's FLOP counter does not look into a custom operator: these functions declare its matrix products.


@register_flop_formula(torch.ops.lmzoo.lstm)
def _lstm_forward_flops(gates_x_shape: list[int], weight_shape: list[int], *_: object, **__: object) -> int:
    B, T, G = gates_x_shape
    return 2 * T * B * G * weight_shape[1]


@register_flop_formula(torch.ops.lmzoo.lstm_backward)
def _lstm_backward_flops(
    grad_h_shape: list[int], grad_c_shape: list[int], weight_shape: list[int], *_: object, **__: object
) -> int:
    """Twice the forward pass: one product for the gradient of the state, one for the gradient of the weight."""
    B, T, H = grad_h_shape
    return 2 * (2 * T * B * H * weight_shape[0])
