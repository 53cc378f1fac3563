"""Top-k with ties broken by position.

`torch.topk` does not define which of several equal scores it returns, and its choice changes with the length of the
input. A layer that selects keys, blocks or experts with it may select others when more entries follow, so decoding
differs from the forward pass on the whole sequence.
"""

from __future__ import annotations

from torch import Tensor


def stable_topk(scores: Tensor, k: int, dim: int = -1) -> tuple[Tensor, Tensor]:
    """The `k` largest scores along `dim` in descending order, the lower position first among equal ones.

    Returns `(values, indices)`. Values are differentiable in `scores`. Entries appended at the end change the result
    only if one of them is larger than the smallest value.
    """
    _, order = scores.detach().sort(dim=dim, descending=True, stable=True)
    indices = order.narrow(dim, 0, k)
    return scores.gather(dim, indices), indices
