"""The leaves of a decoding state that are no plain tensors: a buffer that grows with the tokens, and a constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lmzoo import arguments
from lmzoo.errors import InputError


@dataclass(frozen=True)
class Constant:
    """A leaf for a tensor that decoding needs and that does not depend on the sequence (a filter, absorbed weights).

    It has no batch dimension and belongs to the model: `select`, `nbytes` and `save` skip it, `clone` shares it, and
    `load` takes it from `like`. A layer puts the same object into the next state.
    """

    tensor: Tensor


@dataclass(frozen=True)
class TimeBuffer:
    """Append-only buffer along time (keys, values, tokens), oldest entry first, with value semantics and O(1) append.

    `data` (B, capacity, ...) holds `length` entries at its start. `append` writes after them in place if no other
    state has written there, and copies first otherwise. So two continuations of one state never see each other, and a
    single continuation costs O(1) per token. With a `window`, only the last `window` entries can be read.
    """

    data: Tensor
    length: int = 0
    window: int | None = None
    # How far `data` is written, shared by all states that share `data`: the first state to write an entry owns it.
    _written: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)

    @classmethod
    def empty(
        cls,
        batch_size: int,
        max_len: int,
        *shape: int,
        window: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> TimeBuffer:
        """Returns an empty buffer with capacity for `max_len` entries (or twice the window, if that is less).

        Raises `InputError` for a number that is negative or no integer.
        """
        batch_size, max_len = arguments.count("batch_size", batch_size), arguments.count("max_len", max_len)
        window = None if window is None else arguments.count("window", window, least=1)
        capacity = max_len if window is None else min(max_len, 2 * window)
        return cls(torch.zeros(batch_size, max(capacity, 1), *shape, device=device, dtype=dtype), 0, window)

    def entries(self) -> Tensor:
        """The readable entries, oldest first: (B, min(length, window), ...)."""
        start = 0 if self.window is None else max(0, self.length - self.window)
        return self.data[:, start : self.length]

    def nbytes(self) -> int:
        """Bytes of the readable entries; for an empty buffer, of the readable entries once it is full."""
        count = self.length or self.data.shape[1]
        return self.data[:, : count if self.window is None else min(count, self.window)].nbytes

    def append(self, new: Tensor) -> TimeBuffer:
        """Returns the buffer with `new` (B, T, ...) after its entries; `self` does not change."""
        T = new.shape[1]
        if not self.has_room(T):
            return self._moved(new)
        self.data[:, self.length : self.length + T] = new
        return self.extended(T)

    def has_room(self, T: int) -> bool:
        """True if T entries can be appended in place: there is capacity, and no other state has written there."""
        return self.length + T <= self.data.shape[1] and self._written[0] == self.length

    def extended(self, T: int) -> TimeBuffer:
        """Returns the buffer after T entries were written after the others in `data`."""
        self._written[0] = self.length + T
        return TimeBuffer(self.data, self.length + T, self.window, self._written)

    def _moved(self, new: Tensor) -> TimeBuffer:
        """Append into new memory, of the old capacity if that is enough, and drop entries before the window."""
        kept = torch.cat([self.entries(), new.to(self.data.dtype)], dim=1)
        capacity = self.data.shape[1]
        if self.window is not None and kept.shape[1] >= self.window:
            kept = kept[:, -self.window :]
            capacity = 2 * self.window  # so that the O(window) copy happens only once per `window` tokens
        while capacity < kept.shape[1]:
            capacity = max(1, 2 * capacity)
        data = self.data.new_zeros(kept.shape[0], capacity, *kept.shape[2:])
        data[:, : kept.shape[1]] = kept
        return TimeBuffer(data, kept.shape[1], self.window, [kept.shape[1]])

    def map(self, fn: Callable[[Tensor], Tensor]) -> TimeBuffer:
        """Returns a buffer with its own memory that holds `fn(data)`; `fn` must return a new tensor."""
        return TimeBuffer(fn(self.data), self.length, self.window, [self.length])


def require_rowless(leaf: Any) -> None:
    """Raise `InputError` unless `leaf`, which is no tensor and no buffer, is a constant, a number, a text or None."""
    if not (leaf is None or isinstance(leaf, (int, float, str, Constant))):
        raise InputError(f"a state cannot hold a {type(leaf).__name__}")
