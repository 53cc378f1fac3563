"""Mamba's selective scan: a linear recurrence whose decay and input depend on the token.

Gu & Dao 2023, arXiv 2312.00752, equation 2. The decay is discretized by zero-order hold and the input by Euler's
rule, as in the code of the authors. For every batch row, channel d and state index n

    h_t[d, n] = exp(delta_t[d] * A[d, n]) * h_{t-1}[d, n] + delta_t[d] * u_t[d] * B_t[n]
    y_t[d]    = sum_n C_t[n] * h_t[d, n] + D[d] * u_t[d]

With `signed`, the decay is 2 exp(delta_t[d] * A[d, n]) - 1, between -1 and 1 (Grazzi et al. 2024, arXiv 2411.12537).

`naive_selective_scan` is this definition as a loop. `chunked_selective_scan` computes the same in chunks of time:
everything that does not depend on the state is computed for a whole chunk at once, in buffers small enough for the
CPU cache, and the loop does only one multiply-add per step. Forward saves the states at the starts of the chunks;
backward recomputes the others. So the states of all tokens are never in memory at once.

Shapes: B batch, T time, D channels, N states per channel. Inside, the fast form works time first (TB...) with the
channels last, so that every step reads contiguous memory and every broadcast runs along the long axis.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lmzoo.ops.counting import counted_as
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.operator import operator

CHUNK_LENGTH = 16  # the longest chunk
BUFFER = 1 << 18  # numbers in a buffer: chunks of wide models are shorter, so that the buffers fit into the CPU cache
SHORTEST_CHUNK = 4  # each chunk saves a state
SHORTEST_CHUNKED = 6  # for shorter sequences the loop needs fewer calls


def naive_selective_scan(
    u_BTD: Tensor,
    delta_BTD: Tensor,
    A_DN: Tensor,
    B_BTN: Tensor,
    C_BTN: Tensor,
    D_D: Tensor | None = None,
    h_BDN: Tensor | None = None,
    signed: bool = False,
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `selective_scan`."""
    dtype = _state_dtype(u_BTD)
    u, delta, A, B, C = (x.to(dtype) for x in (u_BTD, delta_BTD, A_DN, B_BTN, C_BTN))
    h = _initial_state(u, A, h_BDN)
    ys = []
    for u_BD, delta_BD, B_BN, C_BN in zip(*(x.unbind(1) for x in (u, delta, B, C)), strict=True):
        decay_BDN = torch.exp(delta_BD[:, :, None] * A)
        decay_BDN = 2 * decay_BDN - 1 if signed else decay_BDN
        h = decay_BDN * h + (delta_BD * u_BD)[:, :, None] * B_BN[:, None, :]
        ys.append((h * C_BN[:, None, :]).sum(-1))
    return _add_skip(torch.stack(ys, dim=1), u, D_D).to(u_BTD.dtype), h


def chunked_selective_scan(
    u_BTD: Tensor,
    delta_BTD: Tensor,
    A_DN: Tensor,
    B_BTN: Tensor,
    C_BTN: Tensor,
    D_D: Tensor | None = None,
    h_BDN: Tensor | None = None,
    signed: bool = False,
) -> tuple[Tensor, Tensor]:
    """The fast form, in chunks; arguments and results as in `selective_scan`."""
    dtype = _state_dtype(u_BTD)
    u, delta, A, B, C = (x.to(dtype) for x in (u_BTD, delta_BTD, A_DN, B_BTN, C_BTN))
    h = _initial_state(u, A, h_BDN)
    y_BTD, h_BND, _ = torch.ops.lmzoo.selective_scan(
        (delta * u).contiguous(),
        delta.contiguous(),
        A.t().contiguous(),
        B.contiguous(),
        C.contiguous(),
        h.transpose(1, 2).contiguous(),
        signed,
    )
    return _add_skip(y_BTD, u, D_D).to(u_BTD.dtype), h_BND.transpose(1, 2)


def selective_scan(
    u_BTD: Tensor,
    delta_BTD: Tensor,
    A_DN: Tensor,
    B_BTN: Tensor,
    C_BTN: Tensor,
    D_D: Tensor | None = None,
    h_BDN: Tensor | None = None,
    *,
    signed: bool = False,
) -> tuple[Tensor, Tensor]:
    """Mamba's selective scan, by the fastest form that fits.

    Args:
        u_BTD: the input, after convolution and activation.
        delta_BTD: the step sizes, positive (after softplus).
        A_DN: the continuous-time decay rates, negative.
        B_BTN: how each token writes into the state.
        C_BTN: how each token reads from the state.
        D_D: the weight of the direct path from `u_BTD`, or None for no such path.
        h_BDN: the state to start from, or None for zeros.
        signed: whether decays are between -1 and 1, instead of 0 and 1.

    Returns:
        `y_BTD` in the dtype of `u_BTD`, and the last state (B, D, N). The state is float32 whatever the dtype of the
        input (float64 for float64 input), under autocast too: decays close to one do not survive bfloat16. Counts as
        4 D N FLOPs per token: a multiply-add per entry of the state to write it, and one to read it.
    """
    B, T, D = u_BTD.shape
    scan = dispatch(T, naive_selective_scan, chunked_selective_scan, shortest=SHORTEST_CHUNKED)
    with counted_as(4 * B * T * D * A_DN.shape[1]):
        return scan(u_BTD, delta_BTD, A_DN, B_BTN, C_BTN, D_D, h_BDN, signed)


def _state_dtype(u_BTD: Tensor) -> torch.dtype:
    return torch.float64 if u_BTD.dtype == torch.float64 else torch.float32


def _initial_state(u_BTD: Tensor, A_DN: Tensor, h_BDN: Tensor | None) -> Tensor:
    if h_BDN is None:
        return u_BTD.new_zeros(u_BTD.shape[0], *A_DN.shape)
    return h_BDN.to(u_BTD.dtype)


def _add_skip(y_BTD: Tensor, u_BTD: Tensor, D_D: Tensor | None) -> Tensor:
    return y_BTD if D_D is None else y_BTD + u_BTD * D_D.to(u_BTD.dtype)


# The fast form is an opaque custom operator, so that torch.compile captures one node instead of unrolling the loop.
# Inside, every product writes into an existing tensor (`out=` or in place), whose dtype autocast does not change.


@operator("selective_scan")
def _scan_forward(
    x_BTD: Tensor, delta_BTD: Tensor, A_ND: Tensor, B_BTN: Tensor, C_BTN: Tensor, h_BND: Tensor, signed: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Scan x = delta * u without the direct path -> (y_BTD, last h_BND, states at the starts of the chunks)."""
    T = x_BTD.shape[1]
    x_TBD, delta_TBD, B_TBN, C_TBN = (v.transpose(0, 1).contiguous() for v in (x_BTD, delta_BTD, B_BTN, C_BTN))
    y_TBD = torch.empty_like(x_TBD)  # time first: a product written into a transposed tensor is computed elsewhere
    C = _chunk_length(h_BND)
    starts = h_BND.new_empty(_n_chunks(T, C), *h_BND.shape)
    decay, states = (h_BND.new_empty(min(C, T), *h_BND.shape) for _ in range(2))
    h = h_BND
    for i, (start, length) in enumerate(_chunks(T, C)):
        now = slice(start, start + length)
        starts[i] = h
        _fill_states(decay[:length], states[:length], x_TBD[now], delta_TBD[now], A_ND, B_TBN[now], starts[i], signed)
        torch.matmul(C_TBN[now].unsqueeze(2), states[:length], out=y_TBD[now].unsqueeze(2))
        h = states[length - 1]
    return y_TBD.transpose(0, 1).contiguous(), h.clone(), starts


@operator("selective_scan_backward")
def _scan_backward(
    grad_y_BTD: Tensor,
    grad_h_BND: Tensor,
    x_BTD: Tensor,
    delta_BTD: Tensor,
    A_ND: Tensor,
    B_BTN: Tensor,
    C_BTN: Tensor,
    starts: Tensor,
    signed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of (x, delta, A, B, C, h): goes from the last chunk to the first and recomputes the states of each."""
    T = x_BTD.shape[1]
    inputs = (grad_y_BTD, x_BTD, delta_BTD, B_BTN, C_BTN)
    grad_y_TBD, x_TBD, delta_TBD, B_TBN, C_TBN = (v.transpose(0, 1).contiguous() for v in inputs)
    gradients = [torch.empty_like(v) for v in (x_TBD, delta_TBD, B_TBN, C_TBN)]
    grad_x_TBD, grad_delta_TBD, grad_B_TBN, grad_C_TBN = gradients
    C = _chunk_length(starts[0])
    grad_A_BND = torch.zeros_like(starts[0])
    decay, states, grad_states = (starts.new_empty(min(C, T), *starts.shape[1:]) for _ in range(3))
    carry_BND = grad_h_BND.clone()  # the gradient of the last state of a chunk from all later chunks
    for i, (start, length) in reversed(list(enumerate(_chunks(T, C)))):
        now = slice(start, start + length)
        a, h, g = decay[:length], states[:length], grad_states[:length]
        _fill_states(a, h, x_TBD[now], delta_TBD[now], A_ND, B_TBN[now], starts[i], signed)
        # The reverse recurrence: g_t = C_t grad_y_t + decay_{t+1} g_{t+1}.
        torch.mul(grad_y_TBD[now].unsqueeze(2), C_TBN[now].unsqueeze(3), out=g)
        g[-1].add_(carry_BND)
        for later in range(length - 1, 0, -1):
            g[later - 1].addcmul_(a[later], g[later])
        torch.mul(a[0], g[0], out=carry_BND)
        torch.matmul(h, grad_y_TBD[now].unsqueeze(3), out=grad_C_TBN[now].unsqueeze(3))
        torch.matmul(g, x_TBD[now].unsqueeze(3), out=grad_B_TBN[now].unsqueeze(3))
        torch.matmul(B_TBN[now].unsqueeze(2), g, out=grad_x_TBD[now].unsqueeze(2))
        # The gradient of the exponent delta * A, computed in the buffer of the decay: decay_t g_t h_{t-1}. The
        # derivative of a signed decay, 2 exp(x) - 1, is the decay plus 1.
        if signed:
            a.add_(1)
        a.mul_(g)
        a[1:].mul_(h[:-1])
        a[0].mul_(starts[i])
        torch.sum(torch.mul(a, A_ND, out=g), 2, out=grad_delta_TBD[now])
        for step in range(length):
            grad_A_BND.addcmul_(a[step], delta_TBD[start + step].unsqueeze(1))
    grad_x, grad_delta, grad_B, grad_C = (v.transpose(0, 1).contiguous() for v in gradients)
    return grad_x, grad_delta, grad_A_BND.sum(0), grad_B, grad_C, carry_BND


def _fill_states(
    decay: Tensor,
    states: Tensor,
    x: Tensor,
    delta: Tensor,
    A_ND: Tensor,
    B: Tensor,
    start_BND: Tensor,
    signed: bool,
) -> None:
    """Write the decays and states (length, B, N, D) of one chunk into the two buffers."""
    torch.mul(delta.unsqueeze(2), A_ND, out=decay).exp_()
    if signed:
        decay.mul_(2).sub_(1)
    torch.mul(x.unsqueeze(2), B.unsqueeze(3), out=states)
    h = start_BND
    for decay_BND, state_BND in zip(decay.unbind(0), states.unbind(0), strict=True):
        h = state_BND.addcmul_(decay_BND, h)


def _chunk_length(h_BND: Tensor) -> int:
    """Returns the number of steps in a chunk for states of this shape."""
    return max(SHORTEST_CHUNK, min(CHUNK_LENGTH, BUFFER // max(1, h_BND.numel())))


def _n_chunks(T: int, C: int) -> int:
    return (T + C - 1) // C


def _chunks(T: int, C: int) -> list[tuple[int, int]]:
    """Returns (start, length) of every chunk, in order."""
    return [(start, min(C, T - start)) for start in range(0, T, C)]


@torch.library.register_fake("lmzoo::selective_scan")
def _scan_forward_fake(
    x_BTD: Tensor, delta_BTD: Tensor, A_ND: Tensor, B_BTN: Tensor, C_BTN: Tensor, h_BND: Tensor, signed: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    starts = h_BND.new_empty(_n_chunks(x_BTD.shape[1], _chunk_length(h_BND)), *h_BND.shape)
    return torch.empty_like(x_BTD), torch.empty_like(h_BND), starts


@torch.library.register_fake("lmzoo::selective_scan_backward")
def _scan_backward_fake(
    grad_y_BTD: Tensor,
    grad_h_BND: Tensor,
    x_BTD: Tensor,
    delta_BTD: Tensor,
    A_ND: Tensor,
    B_BTN: Tensor,
    C_BTN: Tensor,
    starts: Tensor,
    signed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    x, delta, A, B, C = (torch.empty_like(v) for v in (x_BTD, delta_BTD, A_ND, B_BTN, C_BTN))
    return x, delta, A, B, C, torch.empty_like(grad_h_BND)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5], output[2])
    ctx.signed = inputs[6]
    ctx.set_materialize_grads(False)  # otherwise autograd would allocate a zero gradient as large as the saved states


def _backward(ctx: Any, grad_y: Tensor | None, grad_h: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    x_BTD, *rest, starts = ctx.saved_tensors
    grad_y_BTD = torch.zeros_like(x_BTD) if grad_y is None else grad_y.contiguous()
    grad_h_BND = torch.zeros_like(starts[0]) if grad_h is None else grad_h.contiguous()
    grads = torch.ops.lmzoo.selective_scan_backward(grad_y_BTD, grad_h_BND, x_BTD, *rest, starts, ctx.signed)
    return (*grads, None)


torch.library.register_autograd("lmzoo::selective_scan", _backward, setup_context=_save_for_backward)


# torch's FLOP counter does not look into a custom operator: these functions declare the FLOPs of the definition.


@register_flop_formula(torch.ops.lmzoo.selective_scan)
def _scan_forward_flops(
    x_shape: list[int], delta_shape: list[int], A_shape: list[int], *_: object, **__: object
) -> int:
    """Per token, channel and state index: one multiply-add to write the state, one to read it."""
    B, T, D = x_shape
    return 4 * T * B * D * A_shape[0]


@register_flop_formula(torch.ops.lmzoo.selective_scan_backward)
def _scan_backward_flops(grad_y_shape: list[int], grad_h_shape: list[int], *_: object, **__: object) -> int:
    """Twice the forward pass, the usual convention; recomputed states are not counted."""
    B, T, D = grad_y_shape
    return 2 * (4 * T * B * D * grad_h_shape[1])
