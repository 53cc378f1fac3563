"""Top-k with ties broken by position.

`torch.topk` does not define which of several equal scores it returns, and its choice changes with the length of the
input. A layer that selects keys, blocks or experts with it may select others when more entries follow, so decoding
differs from the forward pass on the whole sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

# Gets detached scores and the indices of the largest, both with their entries in the last axis; returns the indices
# that are taken instead.
Chooser = Callable[[Tensor, Tensor], Tensor]


def stable_topk(scores: Tensor, k: int, dim: int = -1) -> tuple[Tensor, Tensor]:
    """The `k` largest scores along `dim` in descending order, the lower position first among equal ones.

    Returns `(values, indices)`. Values are differentiable in `scores`. Entries appended at the end change the result
    only if one of them is larger than the smallest value.
    """
    _, order = scores.detach().sort(dim=dim, descending=True, stable=True)
    indices = order.narrow(dim, 0, k)
    chooser = None if torch.compiler.is_compiling() else _chooser.get()
    if chooser is not None:
        indices = chooser(scores.detach().movedim(dim, -1), indices.movedim(dim, -1)).movedim(-1, dim)
    return scores.gather(dim, indices), indices


@contextmanager
def choosing(chooser: Chooser) -> Iterator[None]:
    """Lets `chooser` see and replace each choice of `stable_topk` within the block; not in compiled code."""
    token = _chooser.set(chooser)
    try:
        yield
    finally:
        _chooser.reset(token)


_chooser: ContextVar[Chooser | None] = ContextVar("chooser of stable_topk", default=None)
