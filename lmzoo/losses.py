"""Loss functions: mean cross-entropy in nats, plain or in chunks, and named auxiliary losses.

Legend: B batch, T time, V vocabulary, D model width, N = B·T positions, C positions of a chunk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lmzoo.ops.linear_cross_entropy import chunked_linear_cross_entropy
from lmzoo.ops.precision import wide, wide_dtype

IGNORE_INDEX = -100  # targets with this value are ignored by the loss
CHUNK_LOGITS = 1 << 25  # limit of logits in memory in the chunked loss: 128 MiB in float32


def cross_entropy(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the targets that are not `IGNORE_INDEX`; 0 when all are ignored.

    Computed in float32 or better, whatever the precision of the logits.
    """
    total, count = _summed(logits_BTV.flatten(0, -2), targets_BT.flatten())
    return total / count.clamp(min=1)


def chunk_size(vocab_size: int) -> int:
    """The largest number of positions whose logits have at most `CHUNK_LOGITS` values; at least one."""
    return max(1, CHUNK_LOGITS // vocab_size)


def chunked_cross_entropy(x_BTD: Tensor, head: nn.Module, targets_BT: Tensor, *, chunk: int) -> Tensor:
    """`cross_entropy(head(x_BTD), targets_BT)` with the logits of at most `chunk` positions in memory at a time.

    If all positions fit into one chunk, this is the plain loss. A linear head (`linear_map`) gets its gradients
    computed together with its logits, which is faster than the plain loss; for other heads, the backward pass
    recomputes the logits.
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

        total = x_BTD.new_zeros((), dtype=wide_dtype(x_BTD.dtype))
        for x_CD, targets_C in zip(x_ND.split(chunk), targets_N.split(chunk), strict=True):
            total = total + checkpoint(of_chunk, x_CD, targets_C, use_reentrant=False, preserve_rng_state=False)
    return total / (targets_N != IGNORE_INDEX).sum().clamp(min=1)


def linear_map(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """The weight (V, D) and bias of a module that computes `F.linear(x, weight, bias)` and nothing else, or None.

    Also None for a linear module with hooks, because hooks run only when the module is called, and for a weight that is
    a tensor subclass, such as a DTensor.
    """
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    if any(hooks) or not _is_linear(module):
        return None
    weight: Any = module.weight
    bias: Any = getattr(module, "bias", None)
    return (weight, bias) if type(weight) in (Tensor, nn.Parameter) else None


def _is_linear(module: nn.Module) -> bool:
    """True for `nn.Linear` with its own `forward` and for a class that declares `is_linear = True`.

    A subclass that overrides `forward` must declare it again: the declaration of its parent does not cover the
    override.
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
    """Returns the sum of the cross-entropies and the number of targets that are not ignored."""
    total = F.cross_entropy(wide(logits_NV), targets_N, ignore_index=IGNORE_INDEX, reduction="sum")
    return total, (targets_N != IGNORE_INDEX).sum()


class _Collecting(threading.local):
    """The dicts that collect the auxiliary losses of this thread; None while they are not collected.

    Not a ContextVar, because torch.compile cannot trace one.
    """

    def __init__(self) -> None:
        self.auxiliary: dict[str, Tensor] | None = None
        self.reported: dict[str, Tensor] | None = None


_collecting = _Collecting()


def auxiliary_loss(name: str, value: Tensor) -> None:
    """Add a named scalar to the objective, for example a load-balancing loss; called by a layer in `features`.

    It is part of the backward pass, but never of the returned loss. Values of one name are summed.
    Does nothing where auxiliary losses are not collected: in evaluation, without targets, and when activation
    checkpointing recomputes a block.
    """
    if _collecting.auxiliary is not None:
        _add(_collecting.auxiliary, name, value)


@contextmanager
def collect_auxiliary(wanted: bool) -> Iterator[dict[str, Tensor]]:
    """Collects, by name, the scalars that layers inside the block pass to `auxiliary_loss`; none unless `wanted`.

    The innermost of nested blocks collects, so a model inside a model keeps its own losses. Leave the block before the
    backward pass, where activation checkpointing calls the layers again.
    """
    named: dict[str, Tensor] = {}
    before = _collecting.auxiliary
    _collecting.auxiliary = named if wanted else None
    try:
        yield named
    finally:
        _collecting.auxiliary = before


def with_auxiliary(loss: Tensor, named: dict[str, Tensor]) -> Tensor:
    """Add the gradients of all auxiliary losses to `loss` without changing its value, and pass them to `reported`."""
    for name, value in named.items():
        loss = loss + (value - value.detach()).to(loss.dtype)
        if _collecting.reported is not None:
            _add(_collecting.reported, name, value.detach())
    return loss


@contextmanager
def reported() -> Iterator[dict[str, Tensor]]:
    """Yields a dict of the auxiliary losses in the forward passes of the block, for logging: name -> detached scalar.

    Each value is summed over the layers with that name and over the forward passes.
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
