"""Decoding state as a value: clone it, select rows of it, measure it.

A state is a tree of dicts, lists, tuples and `TimeBuffer`s whose leaves are tensors with the batch first, plain
numbers, or None. Only the layer that made a piece reads it; everything else (the sampler, beams, speculative decoding,
prefix caches) works through the functions here, alike for every architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

State = Any  # a tree as described above; what is inside is the business of the layer that made it


@dataclass(frozen=True)
class TimeBuffer:
    """What a sequence has left behind so far, oldest first: rows of keys, values or tokens; a value, cheap to extend.

    `data` (B, capacity, ...) holds `length` entries at its start. `append` writes behind them in place when nobody has
    written there before, and copies first when somebody has: two continuations of one state never see each other, and
    the usual single continuation costs O(1) a token. With a `window`, only the last `window` entries stay in reach.
    """

    data: Tensor
    length: int = 0
    window: int | None = None
    # How far `data` has been written, shared by all states that share `data`: the first to write there owns the place.
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
        """No entries, with room for `max_len` of them (for twice the window when that is less)."""
        capacity = max_len if window is None else min(max_len, 2 * window)
        return cls(torch.zeros(batch_size, max(capacity, 1), *shape, device=device, dtype=dtype), 0, window)

    def entries(self) -> Tensor:
        """The entries in reach, oldest first: (B, min(length, window), ...)."""
        start = 0 if self.window is None else max(0, self.length - self.window)
        return self.data[:, start : self.length]

    def append(self, new: Tensor) -> TimeBuffer:
        """The buffer with `new` (B, T, ...) behind its entries; `self` stays what it was."""
        end = self.length + new.shape[1]
        if end <= self.data.shape[1] and self._written[0] == self.length:
            self.data[:, self.length : end] = new
            self._written[0] = end
            return TimeBuffer(self.data, end, self.window, self._written)
        return self._moved(new)

    def _moved(self, new: Tensor) -> TimeBuffer:
        """The same in fresh memory, of the old capacity if it is enough: entries out of reach are dropped here."""
        kept = torch.cat([self.entries(), new.to(self.data.dtype)], dim=1)
        capacity = self.data.shape[1]
        if self.window is not None and kept.shape[1] >= self.window:
            kept = kept[:, -self.window :]
            capacity = 2 * self.window  # so that moving, which costs O(window), is due only once in `window` tokens
        while capacity < kept.shape[1]:
            capacity *= 2
        data = self.data.new_zeros(kept.shape[0], capacity, *kept.shape[2:])
        data[:, : kept.shape[1]] = kept
        return TimeBuffer(data, kept.shape[1], self.window, [kept.shape[1]])

    def map(self, fn: Callable[[Tensor], Tensor]) -> TimeBuffer:
        """A buffer of its own memory holding `fn(data)`; `fn` must return a new tensor."""
        return TimeBuffer(fn(self.data), self.length, self.window, [self.length])


def map_tensors(fn: Callable[[Tensor], Tensor], state: State) -> State:
    """The same tree with `fn` applied to every tensor; `fn` must return a new tensor."""
    if isinstance(state, Tensor):
        return fn(state)
    if isinstance(state, TimeBuffer):
        return state.map(fn)
    if isinstance(state, dict):
        return {key: map_tensors(fn, value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        values = [map_tensors(fn, value) for value in state]
        return type(state)(*values) if hasattr(state, "_fields") else type(state)(values)  # a named tuple takes each
    assert state is None or isinstance(state, (int, float, str)), f"a state cannot hold a {type(state).__name__}"
    return state


def tensors(state: State) -> list[Tensor]:
    """Every tensor of the state, in a fixed order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(note, state)
    return found


def clone(state: State) -> State:
    """A copy that shares no memory with `state`."""
    return map_tensors(torch.clone, state)


def select(state: State, rows: Tensor | Sequence[int]) -> State:
    """The rows `rows` of a state, in that order; rows may repeat (beams) or be left out (finished sequences)."""
    index = torch.as_tensor(rows, dtype=torch.long)
    return map_tensors(lambda tensor: tensor.index_select(0, index.to(tensor.device)), state)


def nbytes(state: State) -> int:
    """Bytes of memory the state's tensors take, capacity that is not yet used included."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors(state))
