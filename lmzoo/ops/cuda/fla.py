"""Sequence algorithms by the Triton kernels of flash-linear-attention, for GPUs. Chosen by `lmzoo.ops.kernels`.

Each function has the arguments and results of the algorithm of its name. Queries, keys and values are rounded to
bfloat16, decays, write strengths and the memory to start from are float32. Gradients reach every argument.

The kernels for a decay of each channel compute the other cases too: one decay for all channels is repeated for each, no
decay is a decay of one. The package has kernels for these cases too, but not for Hopper GPUs with Triton before 3.7.1:
with decays they refuse to run there; without, their gradients are wrong, or they access memory that is not theirs.

A decay below `LEAST_LOG_DECAY` counts as this one: the kernels subtract sums of logarithms, which must be finite, and
must be small enough for their differences to be exact. What remains of a memory is far below bfloat16's rounding.

`torch.compile` calls these functions between two graphs (a graph break), so `fullgraph=True` refuses them.

Legend: B batch, T time, H heads, K key width, V value width, A width of the decays, K or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lmzoo.ops.precision import without_autocast

LOW = torch.bfloat16  # of what is multiplied
LEAST_LOG_DECAY = -16.0  # the logarithm of float32's rounding error

Result = tuple[Tensor, Tensor]


def delta_rule(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, beta_BTH: Tensor, state_BHKV: Tensor | None = None
) -> Result:
    """`lmzoo.ops.delta_rule`, with decays of one."""
    return gated_delta_rule(q_BTHK, k_BTHK, v_BTHV, beta_BTH, _no_decays(v_BTHV), state_BHKV)


def gated_delta_rule(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    beta_BTH: Tensor,
    log_decay_BTHA: Tensor,
    state_BHKV: Tensor | None = None,
) -> Result:
    """`lmzoo.ops.gated_delta_rule`, by the kernel of Kimi delta attention."""
    from fla.ops.kda import chunk_kda

    g_BTHK = _each_channel(log_decay_BTHA, k_BTHK.shape[-1])
    return _run(chunk_kda, state_BHKV, v_BTHV, q=q_BTHK, k=k_BTHK, g=g_BTHK, beta=beta_BTH.float())


def gated_linear_attention(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHA: Tensor | None = None,
    state_BHKV: Tensor | None = None,
) -> Result:
    """`lmzoo.ops.gated_linear_attention`, by the kernel of GLA."""
    from fla.ops.gla import chunk_gla

    log_decay_BTHA = _no_decays(v_BTHV) if log_decay_BTHA is None else log_decay_BTHA
    g_BTHK = _each_channel(log_decay_BTHA, k_BTHK.shape[-1])
    return _run(chunk_gla, state_BHKV, v_BTHV, q=q_BTHK, k=k_BTHK, g=g_BTHK)


def dplr(
    r_BTHK: Tensor,
    log_w_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    a_BTHK: Tensor,
    b_BTHK: Tensor,
    state_BHKV: Tensor | None = None,
) -> Result:
    """`lmzoo.ops.dplr`."""
    from fla.ops.generalized_delta_rule import chunk_dplr_delta_rule

    inputs = {"q": r_BTHK, "k": k_BTHK, "a": a_BTHK.to(LOW), "b": b_BTHK.to(LOW)}
    return _run(chunk_dplr_delta_rule, state_BHKV, v_BTHV, gk=_each_channel(log_w_BTHK, k_BTHK.shape[-1]), **inputs)


KERNELS: dict[str, Callable[..., Result]] = {
    form.__name__: torch.compiler.disable(form) for form in (delta_rule, gated_delta_rule, gated_linear_attention, dplr)
}


def _no_decays(v_BTHV: Tensor) -> Tensor:
    """Returns the logarithms of decays of one, (B, T, H, 1)."""
    return torch.zeros(*v_BTHV.shape[:3], 1, device=v_BTHV.device)


def _each_channel(log_decay_BTHA: Tensor, K: int) -> Tensor:
    """Returns finite logarithms of decays in float32, one for each of K channels."""
    return log_decay_BTHA.float().clamp(min=LEAST_LOG_DECAY).expand(-1, -1, -1, K)


def _run(
    kernel: Callable[..., Any], state_BHKV: Tensor | None, v_BTHV: Tensor, *, q: Tensor, k: Tensor, **inputs: Tensor
) -> Result:
    """Calls `kernel` without scaling and returns the outputs in the dtype of the values, and the last memory."""
    low = {"q": q.to(LOW), "k": k.to(LOW), "v": v_BTHV.to(LOW)}
    state = None if state_BHKV is None else state_BHKV.float()
    with without_autocast(v_BTHV):
        y_BTHV, last_BHKV = kernel(**low, **inputs, scale=1.0, initial_state=state, output_final_state=True)
    return y_BTHV.to(v_BTHV.dtype), last_BHKV
