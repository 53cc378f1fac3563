"""States for the tests of this folder: a tree with every kind of leaf, and its initial form."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lmzoo.state import TimeBuffer


class Pair(NamedTuple):
    left: torch.Tensor
    right: TimeBuffer


def numbers(start: int, count: int, batch_size: int = 2) -> torch.Tensor:
    """(batch_size, count, 1): row b holds 100·b + start, start + 1, ..."""
    row = torch.arange(start, start + count, dtype=torch.float32)
    return torch.stack([row + 100 * b for b in range(batch_size)])[..., None]


def tree() -> dict[str, object]:
    buffer = TimeBuffer.empty(2, 4, 1).append(numbers(0, 3))
    return {"position": 3, "none": None, "layers": [(numbers(0, 2), ()), Pair(numbers(5, 1), buffer)]}


def empty_tree() -> dict[str, object]:
    """The initial state for `tree` with one row, as from `init_state` of a model."""
    pair = Pair(numbers(0, 1, 1), TimeBuffer.empty(1, 9, 1))
    return {"position": 0, "none": None, "layers": [(numbers(0, 2, 1), ()), pair]}
