"""The sLSTM's recurrence: exponential gates and a normalizer (Beck et al. 2024, arXiv 2405.04517, equations 8 to 17).

For every channel, with gates that also read the last output h of all channels of the same head,

    i, f, z, o = gates_x_t + R h_{t-1}
    c_t = sigmoid(f) c_{t-1} + exp(i) tanh(z)     n_t = sigmoid(f) n_{t-1} + exp(i)
    h_t = sigmoid(o) c_t / n_t

exp(i) overflows, so c and n are stored divided by exp(m), with m_t = max(log sigmoid(f) + m_{t-1}, i). h does not
depend on m, so gradients treat m as a constant. One of the two exponents is 0, so n is at least 1 after the first
token. `naive_slstm` is the definition. The recurrence is not linear, so there is no parallel form: `fused_slstm` runs
the same loop in one operator with a hand-written backward pass.

Legend: B batch, T time, H heads, K channels of a head, G = 4 K, the gates i, f, z, o of a head side by side. Inside the
fast form time comes first, then the head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.operator import operator
from lmzoo.ops.precision import wide_dtype, without_autocast

SHORTEST_FUSED = 4  # for shorter sequences the loop needs fewer calls
EMPTY = -1e30  # m before the first token: finite, so that no difference is undefined


class ScalarMemory(NamedTuple):
    """The state of the recurrence, (B, H, K) each, float32 or wider."""

    h: Tensor  # the last output
    c: Tensor  # the cell, divided by exp(m)
    n: Tensor  # the normalizer, divided by exp(m)
    m: Tensor


def empty_memory(B: int, H: int, K: int, like: Tensor) -> ScalarMemory:
    """Returns the state before the first token."""
    h, c, n = (like.new_zeros(B, H, K, dtype=wide_dtype(like.dtype)) for _ in range(3))
    return ScalarMemory(h, c, n, torch.full_like(h, EMPTY))


def naive_slstm(
    gates_BTHG: Tensor, weight_HGK: Tensor, state: ScalarMemory | None = None
) -> tuple[Tensor, ScalarMemory]:
    """The definition, one step after another; arguments and results as in `slstm`."""
    gates, weight, (h, c, n, m) = _wide_inputs(gates_BTHG, weight_HGK, state)
    hs = []
    with without_autocast(gates):
        for gates_BHG in gates.unbind(1):
            i, f, z, o = (gates_BHG + torch.einsum("bhk,hgk->bhg", h, weight)).chunk(4, dim=-1)
            before = F.logsigmoid(f) + m
            m = torch.maximum(before, i).detach()
            keep, write = torch.exp(before - m), torch.exp(i - m)
            c, n = keep * c + write * torch.tanh(z), keep * n + write
            h = torch.sigmoid(o) * c / n
            hs.append(h)
    return torch.stack(hs, dim=1).to(gates_BTHG.dtype), ScalarMemory(h, c, n, m)


def fused_slstm(
    gates_BTHG: Tensor, weight_HGK: Tensor, state: ScalarMemory | None = None
) -> tuple[Tensor, ScalarMemory]:
    """The fast form, with a hand-written backward pass; arguments and results as in `slstm`."""
    gates, weight, memory = _wide_inputs(gates_BTHG, weight_HGK, state)
    gates_THBG = gates.permute(1, 2, 0, 3).contiguous()
    start = (x.transpose(0, 1).contiguous() for x in memory)
    h_THBK, c, n, m, *_ = torch.ops.lmzoo.slstm(gates_THBG, weight.contiguous(), *start)
    last = ScalarMemory(*(x.transpose(0, 1) for x in (h_THBK[-1].clone(), c, n, m.detach())))
    return h_THBK.permute(2, 0, 1, 3).to(gates_BTHG.dtype), last


def slstm(gates_BTHG: Tensor, weight_HGK: Tensor, state: ScalarMemory | None = None) -> tuple[Tensor, ScalarMemory]:
    """The sLSTM's recurrence, by the fastest form that fits.

    Args:
        gates_BTHG: the part of the gates i, f, z, o from the input, biases included, (B, T, H, 4 K).
        weight_HGK: the recurrent weight R of each head, (H, 4 K, K).
        state: the memory to start from, or None for an empty one.

    Returns:
        `h_BTHK`, the output after every token, in the dtype of `gates_BTHG`, and the last memory. Computation and
        memory are float32 whatever the dtype of the input (float64 if the gates are), under autocast too.
    """
    scan = dispatch(gates_BTHG.shape[1], naive_slstm, fused_slstm, shortest=SHORTEST_FUSED)
    return scan(gates_BTHG, weight_HGK, state)


def _wide_inputs(
    gates_BTHG: Tensor, weight_HGK: Tensor, state: ScalarMemory | None
) -> tuple[Tensor, Tensor, ScalarMemory]:
    dtype = wide_dtype(gates_BTHG.dtype)
    H, _, K = weight_HGK.shape
    memory = empty_memory(gates_BTHG.shape[0], H, K, gates_BTHG) if state is None else state
    return gates_BTHG.to(dtype), weight_HGK.to(dtype), ScalarMemory(*(x.to(dtype) for x in memory))


# A custom operator, so that torch.compile captures one opaque call instead of unrolling the loop.


@operator("slstm")
def _forward(
    x_THBG: Tensor, weight_HGK: Tensor, h_HBK: Tensor, c_HBK: Tensor, n_HBK: Tensor, m_HBK: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns h (T, H, B, K), the last c, n and m; for backward: the activations (T, H, B, 4 K), c and n before each
    step (T, H, B, K). The activations are exp(i - m), the share that is kept, tanh(z) and sigmoid(o).
    """
    T, (H, B, K) = len(x_THBG), h_HBK.shape
    gates_THBG, weight_HKG = torch.empty_like(x_THBG), weight_HGK.mT.contiguous()
    h_THBK, c_THBK, n_THBK = (x_THBG.new_empty(T, H, B, K) for _ in range(3))
    h, c, n, m = h_HBK, c_HBK, n_HBK.clone(), m_HBK
    for t in range(T):
        c_THBK[t], n_THBK[t] = c, n
        torch.baddbmm(x_THBG[t], h, weight_HKG, out=gates_THBG[t])
        i, f, z, o = gates_THBG[t].chunk(4, dim=-1)
        before = F.logsigmoid(f).add_(m)
        m = torch.maximum(before, i)
        i.sub_(m).exp_()
        torch.exp(before.sub_(m), out=f)
        z.tanh_()
        o.sigmoid_()
        c, n = torch.addcmul(f * c, i, z), torch.addcmul(i, f, n)
        h = torch.div(o * c, n, out=h_THBK[t])
    return h_THBK, c, n, m.clone(), gates_THBG, c_THBK, n_THBK


@operator("slstm_backward")
def _backward_pass(
    grad_h_THBK: Tensor,
    grad_c_HBK: Tensor,
    grad_n_HBK: Tensor,
    x_THBG: Tensor,
    weight_HGK: Tensor,
    h_HBK: Tensor,
    h_THBK: Tensor,
    last_c_HBK: Tensor,
    last_n_HBK: Tensor,
    gates_THBG: Tensor,
    c_THBK: Tensor,
    n_THBK: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of (x, weight, h, c, n), with m as a constant."""
    i, keep, z, o = gates_THBG.chunk(4, dim=-1)
    before_THBG = torch.cat([h_HBK[None], h_THBK[:-1]])
    after_c, after_n = torch.cat([c_THBK[1:], last_c_HBK[None]]), torch.cat([n_THBK[1:], last_n_HBK[None]])
    ratio = after_c / after_n
    # Derivatives for all times at once; the loop backward in time only combines them.
    f = (x_THBG.chunk(4, dim=-1)[1] + torch.einsum("thbk,hgk->thbg", before_THBG, weight_HGK.chunk(4, dim=1)[1])).neg()
    keep_by_f = keep * f.sigmoid()
    h_by_c, h_by_o = o / after_n, ratio * o * (1 - o)
    i_by_c, z_by_c, f_by_c, f_by_n = i * z, i * (1 - z * z), keep_by_f * c_THBK, keep_by_f * n_THBK
    grad_THBG = torch.empty_like(gates_THBG)
    grad_i, grad_f, grad_z, grad_o = grad_THBG.chunk(4, dim=-1)
    grad_h, grad_c, grad_n = torch.zeros_like(h_HBK), grad_c_HBK.clone(), grad_n_HBK.clone()
    for t in reversed(range(len(h_THBK))):
        grad_h = grad_h + grad_h_THBK[t]
        through = grad_h * h_by_c[t]
        grad_c.add_(through)
        grad_n.addcmul_(through, ratio[t], value=-1)
        torch.addcmul(grad_c * i_by_c[t], grad_n, i[t], out=grad_i[t])
        torch.addcmul(grad_c * f_by_c[t], grad_n, f_by_n[t], out=grad_f[t])
        torch.mul(grad_c, z_by_c[t], out=grad_z[t])
        torch.mul(grad_h, h_by_o[t], out=grad_o[t])
        grad_c.mul_(keep[t])
        grad_n.mul_(keep[t])
        grad_h = grad_THBG[t] @ weight_HGK
    grad_weight_HGK = torch.einsum("thbg,thbk->hgk", grad_THBG, before_THBG)
    return grad_THBG, grad_weight_HGK, grad_h, grad_c, grad_n


@torch.library.register_fake("lmzoo::slstm")
def _forward_fake(
    x_THBG: Tensor, weight_HGK: Tensor, h_HBK: Tensor, c_HBK: Tensor, n_HBK: Tensor, m_HBK: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    h, c_before, n_before = (x_THBG.new_empty(len(x_THBG), *h_HBK.shape) for _ in range(3))
    c, n, m = (torch.empty_like(x) for x in (c_HBK, n_HBK, m_HBK))
    return h, c, n, m, torch.empty_like(x_THBG), c_before, n_before


@torch.library.register_fake("lmzoo::slstm_backward")
def _backward_fake(
    grad_h_THBK: Tensor,
    grad_c_HBK: Tensor,
    grad_n_HBK: Tensor,
    x_THBG: Tensor,
    weight_HGK: Tensor,
    h_HBK: Tensor,
    *_: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    h, c, n = (torch.empty_like(h_HBK) for _ in range(3))
    return torch.empty_like(x_THBG), torch.empty_like(weight_HGK), h, c, n


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    h_THBK, c, n, _, *activations = output
    ctx.save_for_backward(*inputs[:3], h_THBK, c, n, *activations)
    ctx.set_materialize_grads(False)  # otherwise autograd allocates zeros as large as the saved activations


def _backward(ctx: Any, *grads_of_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # read once: activation checkpointing refuses a second time
    outputs = saved[3:6]
    grads = (
        torch.zeros_like(output) if grad is None else grad.contiguous()
        for grad, output in zip(grads_of_outputs[:3], outputs, strict=True)
    )
    return *torch.ops.lmzoo.slstm_backward(*grads, *saved), None


torch.library.register_autograd("lmzoo::slstm", _backward, setup_context=_save_for_backward)


# torch's FLOP counter does not look into a custom operator: these functions declare its matrix products.


@register_flop_formula(torch.ops.lmzoo.slstm)
def _forward_flops(x_shape: list[int], weight_shape: list[int], *_: object, **__: object) -> int:
    T, H, B, G = x_shape
    return 2 * T * H * B * G * weight_shape[2]


@register_flop_formula(torch.ops.lmzoo.slstm_backward)
def _backward_flops(grad_shape: list[int], *_: object, **__: object) -> int:
    """Twice the forward pass: one product for the gradient of h, one for the gradient of the weight."""
    T, H, B, K = grad_shape
    return 2 * (2 * T * H * B * 4 * K * K)
