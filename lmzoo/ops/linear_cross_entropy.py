"""Summed cross-entropy of a linear map (fused linear cross-entropy) that never holds all logits in memory.

    logits[n, v] = x[n] . weight[v] + bias[v]
    total        = sum over the n not ignored of  log(sum_v exp(logits[n, v])) - logits[n, targets[n]]

`naive_linear_cross_entropy` is this definition. `chunked_linear_cross_entropy` processes a chunk of positions at a
time: it computes their logits, and from them directly the gradients (softmax minus one at the target). So no logits are
computed twice, and the tensors saved for the backward pass are as large as the inputs, for any vocabulary size: the
backward pass only scales them. (Wijmans et al. 2024, arXiv 2411.09009, and the Liger kernels do this on a GPU.)

Shapes: N positions, D model width, V vocabulary, C positions in a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lmzoo.ops.operator import operator
from lmzoo.ops.precision import wide, wide_dtype, without_autocast


def naive_linear_cross_entropy(
    x_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, ignore_index: int
) -> Tensor:
    """The definition; arguments and result as in `chunked_linear_cross_entropy`, without chunks."""
    logits_NV = F.linear(x_ND, weight_VD, bias_V)
    return F.cross_entropy(wide(logits_NV), targets_N, ignore_index=ignore_index, reduction="sum")


def chunked_linear_cross_entropy(
    x_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, ignore_index: int, chunk: int
) -> Tensor:
    """Returns the sum of the cross-entropies in nats over targets that are not `ignore_index`, in float32 or wider.

    The logits of at most `chunk` positions are in memory at a time. Under autocast the products are in its dtype, as in
    a linear layer, and the rest is in float32. Double backward raises RuntimeError.
    """
    device = x_ND.device.type
    low = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if low and x_ND.dtype != torch.float64 else weight_VD.dtype
    inputs = [x_ND, weight_VD] if bias_V is None else [x_ND, weight_VD, bias_V]
    gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    total, _, _, _ = torch.ops.lmzoo.linear_cross_entropy(
        x_ND, weight_VD, bias_V, targets_N, ignore_index, chunk, dtype, gradients
    )
    return total


# An opaque custom operator, so that torch.compile captures one node instead of unrolling the chunks.


@operator("linear_cross_entropy")
def _forward(
    x_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    ignore_index: int,
    chunk: int,
    dtype: torch.dtype,
    gradients: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the total and its gradients for (x, weight, bias); products in `dtype`. Unneeded gradients are empty."""
    total, grad_x_ND, grad_weight_VD, grad_bias_V = _outputs(x_ND, weight_VD, bias_V, gradients)
    for sum_ in (total, grad_weight_VD, grad_bias_V):
        sum_.zero_()
    weight_low_VD = weight_VD.to(dtype)
    with without_autocast(x_ND):
        for start in range(0, len(x_ND), chunk):
            now = slice(start, start + chunk)
            x_CD, targets_C = x_ND[now].to(dtype), targets_N[now]
            logits_CV = torch.mm(x_CD, weight_low_VD.t())
            if bias_V is not None:
                logits_CV += bias_V.to(dtype)
            logits_CV = logits_CV.to(total.dtype)
            counts_C = targets_C != ignore_index
            places_C1 = targets_C.where(counts_C, 0).unsqueeze(1)
            at_target_C = logits_CV.gather(1, places_C1).squeeze(1)
            if not gradients:
                total += (torch.logsumexp(logits_CV, 1) - at_target_C).where(counts_C, 0).sum()
                continue
            highest_C = logits_CV.amax(1)
            grad_logits_CV = torch.softmax(logits_CV, 1)
            del logits_CV
            # log(sum exp) from the most likely token, whose probability is never small.
            normalizer_C = highest_C - grad_logits_CV.amax(1).log()
            total += (normalizer_C - at_target_C).where(counts_C, 0).sum()
            grad_logits_CV.scatter_add_(1, places_C1, grad_logits_CV.new_tensor(-1.0).expand_as(places_C1))
            # Ignored positions are masked in the narrow factor of each product, because the gradients of the logits are
            # large.
            if bias_V is not None:
                grad_bias_V += torch.mv(grad_logits_CV.t(), counts_C.to(grad_logits_CV.dtype))
            grad_logits_CV = grad_logits_CV.to(dtype)
            counts_C1 = counts_C.unsqueeze(1)
            grad_x_ND[now] = torch.mm(grad_logits_CV, weight_low_VD).mul_(counts_C1)
            x_CD = x_CD * counts_C1
            if grad_weight_VD.dtype == dtype:
                grad_weight_VD.addmm_(grad_logits_CV.t(), x_CD)
            else:  # summed in the precision of the weight
                grad_weight_VD += torch.mm(grad_logits_CV.t(), x_CD)
    return total, grad_x_ND, grad_weight_VD, grad_bias_V


def _outputs(
    x_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, gradients: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Allocate the results."""
    total = x_ND.new_empty((), dtype=wide_dtype(x_ND.dtype))
    inputs = (x_ND, weight_VD, x_ND.new_empty(0) if bias_V is None else bias_V)
    grad_x_ND, grad_weight_VD, grad_bias_V = (torch.empty_like(v if gradients else v[:0]) for v in inputs)
    return total, grad_x_ND, grad_weight_VD, grad_bias_V


@torch.library.register_fake("lmzoo::linear_cross_entropy")
def _forward_fake(
    x_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _outputs(x_ND, weight_VD, bias_V, rest[-1])


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    ctx.has_bias = inputs[2] is not None
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # otherwise autograd would allocate zeros as large as the gradients


def _backward(ctx: Any, grad_total: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_total is None:
        return (None,) * 8
    if torch.is_grad_enabled():
        raise RuntimeError("the loss in chunks can be differentiated once, not twice: use return_logits=True")
    grad_x_ND, grad_weight_VD, grad_bias_V = (gradient * grad_total for gradient in ctx.saved_tensors)
    return grad_x_ND, grad_weight_VD, grad_bias_V if ctx.has_bias else None, None, None, None, None, None


torch.library.register_autograd("lmzoo::linear_cross_entropy", _backward, setup_context=_keep_gradients)


@register_flop_formula(torch.ops.lmzoo.linear_cross_entropy)
def _flops(x_shape: list[int], weight_shape: list[int], *rest: Any, **__: object) -> int:
    """One product in the forward pass, and one for each gradient that is needed."""
    return (6 if rest[-1] else 2) * x_shape[0] * x_shape[1] * weight_shape[0]
