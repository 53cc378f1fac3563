"""Loss functions: mean cross-entropy in nats, plain or in chunks, and named auxiliary losses.

Legend: B batch, T time, V vocabulary, D model width, N = B·T positions, C positions of a chunk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
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


def chunk_size(vocab_size: int) -> int:
    """As many positions as keep the logits of a chunk under `CHUNK_LOGITS` values, and at least one."""
    return max(1, CHUNK_LOGITS // vocab_size)


def chunked_cross_entropy(x_BTD: Tensor, head: nn.Module, targets_BT: Tensor, *, chunk: int) -> Tensor:
    """`cross_entropy(head(x_BTD), targets_BT)` with at most `chunk` positions' logits in memory, backward included.

    If all positions fit into one chunk, this is the plain loss. A linear head (`linear_map`) has its gradients computed
    together with its logits, which takes less time than the plain loss; the logits of any other head are computed again
    in the backward pass.
    """
    x_ND, targets_N = x_BTD.flatten(0, 1), targets_BT.flatten()
    if chunk >= len(x_ND):
        return cross_entropy(head(x_BTD), targets_BT)
    linear = linear_map(head)
    if linear is not None:
        total = chunked_linear_cross_entropy(x_ND, *linear, targets_N, IGNORE_INDEX, chunk)
    else:

        def of_chunk(x_CD: Tensor, targets_C: Tensor) -> Tensor:
            return _summed(head(x_CD), targets_C)[0]

        total = x_BTD.new_zeros((), dtype=torch.promote_types(x_BTD.dtype, torch.float32))
        for x_CD, targets_C in zip(x_ND.split(chunk), targets_N.split(chunk), strict=True):
            total = total + checkpoint(of_chunk, x_CD, targets_C, use_reentrant=False, preserve_rng_state=False)
    return total / (targets_N != IGNORE_INDEX).sum().clamp(min=1)


def linear_map(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """The weight (V, D) and bias of a module that computes `F.linear(x, weight, bias)` and nothing else, or None.

    None as well for a linear module with hooks, which only calling it would run, and for one whose weight is a tensor
    subclass, such as a DTensor.
    """
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    if any(hooks) or not _is_linear(module):
        return None
    weight: Any = module.weight
    bias: Any = getattr(module, "bias", None)
    return (weight, bias) if type(weight) in (Tensor, nn.Parameter) else None


def _is_linear(module: nn.Module) -> bool:
    """True for `nn.Linear` with its own `forward` and for a class that says `is_linear = True`.

    A subclass that overrides `forward` must say it again: what its parent said is not true of the new `forward`.
    """
    if "forward" in vars(module):
        return False
    for cls in type(module).__mro__:
        if cls is nn.Linear:
            return True
        if "is_linear" in vars(cls):
            return module.is_linear is True
        if "forward" in vars(cls):
            return False
    return False


def _summed(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the cross-entropies, and the number of targets that are not ignored."""
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    total = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORE_INDEX, reduction="sum")
    return total, (targets_N != IGNORE_INDEX).sum()


class _Collecting(threading.local):
    """The dicts that auxiliary losses of this thread go to; None while nobody wants them.

    Not a ContextVar, because torch.compile cannot trace one.
    """

    def __init__(self) -> None:
        self.auxiliary: dict[str, Tensor] | None = None
        self.reported: dict[str, Tensor] | None = None


_collecting = _Collecting()


def auxiliary_loss(name: str, value: Tensor) -> None:
    """Called by a layer in `features`: adds a named scalar that is minimized beside the loss (expert balance, say).

    It takes part in the backward pass and is never part of the loss that is returned. Values of one name are summed.
    Does nothing where no auxiliary losses are wanted: in evaluation, without targets, and when activation
    checkpointing computes a block again.
    """
    if _collecting.auxiliary is not None:
        _add(_collecting.auxiliary, name, value)


@contextmanager
def collect_auxiliary(wanted: bool) -> Iterator[dict[str, Tensor]]:
    """Collects what the layers called inside pass to `auxiliary_loss`, by name; nothing unless `wanted`.

    Of nested collections the innermost is the one in force, so a model inside a model keeps its own losses. Leave the
    block before the backward pass: activation checkpointing calls the layers again there.
    """
    named: dict[str, Tensor] = {}
    before = _collecting.auxiliary
    _collecting.auxiliary = named if wanted else None
    try:
        yield named
    finally:
        _collecting.auxiliary = before


def with_auxiliary(loss: Tensor, named: dict[str, Tensor]) -> Tensor:
    """The same value as `loss`, with the gradient of `loss` plus every auxiliary loss; tells `reported` about them."""
    for name, value in named.items():
        loss = loss + (value - value.detach()).to(loss.dtype)
        if _collecting.reported is not None:
            _add(_collecting.reported, name, value.detach())
    return loss


@contextmanager
def reported() -> Iterator[dict[str, Tensor]]:
    """Makes the auxiliary losses of the model's forward pass visible, for logging: a dict of name -> detached scalar.

    A value is the sum over the layers that used the name, and over the forward passes within the block.
    """
    named: dict[str, Tensor] = {}
    before = _collecting.reported
    _collecting.reported = named
    try:
        yield named
    finally:
        _collecting.reported = before


def _add(named: dict[str, Tensor], name: str, value: Tensor) -> None:
    named[name] = named[name] + value if name in named else value
