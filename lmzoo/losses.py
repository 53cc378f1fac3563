"""From features or logits to the loss: mean cross-entropy in nats, plain and without ever holding all logits.

Legend: B batch, T time, V vocabulary, D model width, N = B·T positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

IGNORE_INDEX = -100  # a target of this value takes no part in the loss
CHUNK_LOGITS = 1 << 23  # logits held at a time by the chunked loss: 32 MiB in float32


def cross_entropy(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the targets that are not `IGNORE_INDEX`; 0 when all are ignored.

    Computed in float32 or better, whatever the precision of the logits.
    """
    total, count = _summed(logits_BTV.flatten(0, -2), targets_BT.flatten())
    return total / count.clamp(min=1)


def chunked_cross_entropy(x_BTD: Tensor, head: nn.Module, targets_BT: Tensor, *, chunk: int | None = None) -> Tensor:
    """`cross_entropy(head(x_BTD), targets_BT)` with at most `chunk` positions' logits in memory, backward included.

    Each chunk's logits are computed again in the backward pass instead of being kept. `chunk` defaults to as many
    positions as keep the logits under `CHUNK_LOGITS` values; when all fit, this is the plain loss.
    """
    x_ND, targets_N = x_BTD.flatten(0, 1), targets_BT.flatten()
    if chunk is None:
        chunk = max(1, CHUNK_LOGITS // _out_features(head, x_ND))
    if chunk >= len(x_ND):
        return cross_entropy(head(x_BTD), targets_BT)

    def piece(x_CD: Tensor, targets_C: Tensor) -> Tensor:
        return _summed(head(x_CD), targets_C)[0]

    total = x_BTD.new_zeros((), dtype=torch.promote_types(x_BTD.dtype, torch.float32))
    for x_CD, targets_C in zip(x_ND.split(chunk), targets_N.split(chunk), strict=True):
        total = total + checkpoint(piece, x_CD, targets_C, use_reentrant=False, preserve_rng_state=False)
    return total / (targets_N != IGNORE_INDEX).sum().clamp(min=1)


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
def collect_auxiliary() -> Iterator[dict[str, Tensor]]:
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
