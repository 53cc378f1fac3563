"""From features or logits to the loss: mean cross-entropy in nats, plain and without ever holding all logits.

Legend: B batch, T time, V vocabulary, D model width, N = B·T positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from lmzoo.ops.linear_cross_entropy import chunked_linear_cross_entropy

IGNORE_INDEX = -100  # a target of this value takes no part in the loss
CHUNK_LOGITS = 1 << 25  # logits held at a time by the chunked loss: 128 MiB in float32


def cross_entropy(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the targets that are not `IGNORE_INDEX`; 0 when all are ignored.

    Computed in float32 or better, whatever the precision of the logits.
    """
    total, count = _summed(logits_BTV.flatten(0, -2), targets_BT.flatten())
    return total / count.clamp(min=1)


def chunked_cross_entropy(x_BTD: Tensor, head: nn.Module, targets_BT: Tensor, *, chunk: int | None = None) -> Tensor:
    """`cross_entropy(head(x_BTD), targets_BT)` with at most `chunk` positions' logits in memory, backward included.

    `chunk` defaults to as many positions as keep the logits under `CHUNK_LOGITS` values; when all fit, this is the
    plain loss. A head that is a linear map and nothing else has its gradients computed beside its logits, in less time
    than the plain loss takes; the logits of any other head are computed again in the backward pass.
    """
    x_ND, targets_N = x_BTD.flatten(0, 1), targets_BT.flatten()
    if chunk is None:
        chunk = max(1, CHUNK_LOGITS // _out_features(head, x_ND))
    if chunk >= len(x_ND):
        return cross_entropy(head(x_BTD), targets_BT)
    linear = linear_map(head)
    if linear is not None:
        total = chunked_linear_cross_entropy(x_ND, *linear, targets_N, IGNORE_INDEX, chunk)
    else:

        def piece(x_CD: Tensor, targets_C: Tensor) -> Tensor:
            return _summed(head(x_CD), targets_C)[0]

        total = x_BTD.new_zeros((), dtype=torch.promote_types(x_BTD.dtype, torch.float32))
        for x_CD, targets_C in zip(x_ND.split(chunk), targets_N.split(chunk), strict=True):
            total = total + checkpoint(piece, x_CD, targets_C, use_reentrant=False, preserve_rng_state=False)
    return total / (targets_N != IGNORE_INDEX).sum().clamp(min=1)


def linear_map(head: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """The weight (V, D) and bias of a head that computes `F.linear(x, weight, bias)` and nothing else; else None.

    Found out by asking for one product, which is not carried out. A head with hooks, or whose weights are spread over
    devices, is left to do its work itself, and so is one that is being compiled unless it is an `nn.Linear`.
    """
    hooks = (head._forward_hooks, head._forward_pre_hooks, head._backward_hooks, head._backward_pre_hooks)
    if any(hooks):
        return None
    if torch.compiler.is_compiling():
        found = (head.weight, head.bias) if isinstance(head, nn.Linear) and _forward_of(head) else None
    else:
        found = _asked_for(head)
    return found if found is not None and type(found[0]) in (Tensor, nn.Parameter) else None


def _forward_of(head: nn.Linear) -> bool:
    """Whether its forward is the one of `nn.Linear`."""
    return type(head).forward is nn.Linear.forward and "forward" not in vars(head)


class _OneProduct(TorchFunctionMode):
    """Stands in for torch: notes a linear product, and lets nothing else happen."""

    product: tuple[Any, ...] | None = None
    result: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Tensor:
        if func is not F.linear or kwargs:
            raise TypeError("this is not one linear product")
        self.product = args
        self.result = torch.empty(0)
        return self.result


def _asked_for(head: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """The weight and bias that a head hands to `F.linear` with its input, when its result is the head's own."""
    asked = torch.empty(0)
    with _OneProduct() as torch_itself:
        try:
            result = head(asked)
        except Exception:  # whatever it was: it does something else, and will do it again where it matters
            return None
    product = torch_itself.product
    if product is None or product[0] is not asked or result is not torch_itself.result:
        return None
    return product[1], (product[2] if len(product) > 2 else None)


def _summed(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the cross-entropies and the number of targets that count."""
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    total = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORE_INDEX, reduction="sum")
    return total, (targets_N != IGNORE_INDEX).sum()


def _out_features(head: nn.Module, x_ND: Tensor) -> int:
    """V, from the head's weight where it has one; a head that only passes its input on keeps its width."""
    weight = getattr(head, "weight", None)
    return weight.shape[0] if isinstance(weight, Tensor) else x_ND.shape[-1]


_collected: list[dict[str, Tensor]] = []  # a stack: `collect_auxiliary` may be nested by a model inside a model


def auxiliary_loss(name: str, value: Tensor) -> None:
    """Called by a layer in `features`: a named scalar to be minimised beside the loss (an expert balance, say).

    It takes part in the backward pass and is never mixed into the reported loss. Values of one name are added up.
    """
    if _collected:
        named = _collected[-1]
        named[name] = named[name] + value if name in named else value


@contextmanager
def collect_auxiliary(wanted: bool = True) -> Iterator[dict[str, Tensor]]:
    """Gather what the layers inside report by `auxiliary_loss`, by name."""
    named: dict[str, Tensor] = {}
    _collected.append(named)
    try:
        yield named
    finally:
        _collected.pop()


def with_auxiliary(loss: Tensor, named: dict[str, Tensor]) -> Tensor:
    """The same value as `loss`, with the gradient of `loss` plus every auxiliary loss."""
    for value in named.values():
        loss = loss + (value - value.detach()).to(loss.dtype)
    return loss
