"""Decoding state as a value: clone it, select rows of it, measure it, keep it in a file.

A state is a tree of dicts, lists, tuples and `TimeBuffer`s whose leaves are tensors with the batch first, plain
numbers, or None. Only the layer that made a piece reads it; everything else (the sampler, beams, speculative decoding,
prefix caches) works through the functions here, alike for every architecture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lmzoo.errors import CheckpointError
from lmzoo.storage import atomic, safetensors

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
        T = new.shape[1]
        if not self.has_room(T):
            return self._moved(new)
        self.data[:, self.length : self.length + T] = new
        return self.extended(T)

    def has_room(self, T: int) -> bool:
        """Whether T entries can be written behind the others in place, because there is memory and nobody has."""
        return self.length + T <= self.data.shape[1] and self._written[0] == self.length

    def extended(self, T: int) -> TimeBuffer:
        """The buffer after T entries were written behind the others in `data`."""
        self._written[0] = self.length + T
        return TimeBuffer(self.data, self.length + T, self.window, self._written)

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


def map_leaves(fn: Callable[[Any], Any], state: State) -> State:
    """The same tree with `fn` applied to every leaf: tensors, time buffers, numbers, None."""
    if isinstance(state, dict):
        return {key: map_leaves(fn, value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        values = [map_leaves(fn, value) for value in state]
        return type(state)(*values) if hasattr(state, "_fields") else type(state)(values)  # a named tuple takes each
    return fn(state)


def map_tensors(fn: Callable[[Tensor], Tensor], state: State) -> State:
    """The same tree with `fn` applied to every tensor; `fn` must return a new tensor."""

    def mapped(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return fn(leaf)
        if isinstance(leaf, TimeBuffer):
            return leaf.map(fn)
        assert leaf is None or isinstance(leaf, (int, float, str)), f"a state cannot hold a {type(leaf).__name__}"
        return leaf

    return map_leaves(mapped, state)


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


FORMAT = "lmzoo decoding state 1"


def save(path: str | Path, state: State) -> None:
    """Write a state to the file `path` (safetensors; its structure is JSON in the header). Replaces it whole or not.

    What is read again with `load` goes on to the bit as `state` does: a prefix cache. Raises `CheckpointError` where
    nothing can be written.
    """
    kept: dict[str, Tensor] = {}
    header = {"format": FORMAT, "structure": json.dumps(_described(state, kept))}
    atomic.write_file(Path(path), safetensors.chunks(kept, header))


def _described(state: State, kept: dict[str, Tensor]) -> dict[str, Any]:
    """The structure as JSON takes it; the tensors are put into `kept` under numbers."""
    if isinstance(state, (Tensor, TimeBuffer)):
        name = str(len(kept))
        if isinstance(state, Tensor):
            kept[name] = state.detach().clone(memory_format=torch.contiguous_format)
            return {"tensor": name}
        kept[name] = state.data[:, : state.length].detach().clone(memory_format=torch.contiguous_format)
        return {"buffer": name, "capacity": state.data.shape[1], "window": state.window}
    if isinstance(state, dict):
        return {"dict": {key: _described(value, kept) for key, value in state.items()}}
    if isinstance(state, (list, tuple)):
        kind = "list" if isinstance(state, list) else "named" if hasattr(state, "_fields") else "tuple"
        return {kind: [_described(value, kept) for value in state]}
    assert state is None or isinstance(state, (int, float, str)), f"a state cannot hold a {type(state).__name__}"
    return {"value": state}


def load(path: str | Path, like: State) -> State:
    """The state in the file `path`. `like` is any state of the same model, as `model.init_state(1)` makes it: it says
    what the file must hold, gives named tuples their types and tensors their device. Nothing in the file is ever run.

    Raises `CheckpointError` for a file that is missing, damaged, or holds the state of another model.
    """
    device = next((tensor.device for tensor in tensors(like)), torch.device("cpu"))
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise CheckpointError(f"{path}: not a decoding state: its header does not say {FORMAT!r}")
            read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        return _restored(json.loads(header.get("structure", "")), read, like)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (SafetensorError, _Unlike, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = "the state of another model" if isinstance(error, _Unlike) else "a damaged decoding state"
        raise CheckpointError(f"{path}: {reason}: {error}") from error


class _Unlike(Exception):
    """What a file holds is not what the model's states hold."""


def _restored(node: object, read: Mapping[str, Tensor], like: State) -> State:
    """The state that `node` describes. A layer's part may be None in either: past the window nothing of it is kept."""
    if not isinstance(node, dict) or not node:
        raise ValueError("its structure is not one that lmzoo writes")
    kind, content = next(iter(node.items()))
    if kind == "value":
        if not (content is None or (isinstance(content, (int, float, str)) and type(content) is type(like))):
            raise _Unlike(f"{content!r} in place of {_named(like)}")
        return content
    if kind == "tensor" and isinstance(like, Tensor):
        return _same_kind(read, content, like)
    if kind == "buffer" and isinstance(like, TimeBuffer):
        return _restored_buffer(node, _same_kind(read, content, like.data, skip=2), like)
    if kind == "dict" and isinstance(like, dict) and isinstance(content, dict) and content.keys() == like.keys():
        return {key: _restored(value, read, like[key]) for key, value in content.items()}
    same = {"list": list, "tuple": tuple, "named": tuple}.get(kind)
    named = hasattr(like, "_fields")
    fits = same is not None and isinstance(like, same) and named == (kind == "named")
    if not (fits and isinstance(content, list) and len(content) == len(like)):
        raise _Unlike(f"a {kind} in place of {_named(like)}")
    values = [_restored(value, read, part) for value, part in zip(content, like, strict=True)]
    return type(like)(*values) if named else type(like)(values)


def _same_kind(read: Mapping[str, Tensor], name: object, like: Tensor, skip: int = 1) -> Tensor:
    """The tensor `name`, with the type and, but for the first `skip` axes, the shape of `like`."""
    tensor = read.get(name) if isinstance(name, str) else None
    if tensor is None:
        raise ValueError(f"it has no tensor {name!r}")
    if tensor.dtype != like.dtype or tensor.ndim != like.ndim or tensor.shape[skip:] != like.shape[skip:]:
        raise _Unlike(f"{tensor.dtype} {tuple(tensor.shape)} in place of {like.dtype} {tuple(like.shape)}")
    return tensor


def _restored_buffer(node: Mapping[str, Any], entries: Tensor, like: TimeBuffer) -> TimeBuffer:
    capacity, length = node.get("capacity"), entries.shape[1]
    if node.get("window") != like.window:
        raise _Unlike(f"a window of {node.get('window')} in place of {like.window}")
    if type(capacity) is not int or capacity < length:
        raise ValueError(f"a buffer of {length} entries has capacity {capacity!r}")
    room = min(capacity, max(4 * length, 4096))  # a number in a file must not take all memory; a buffer grows anyway
    data = entries.new_zeros(entries.shape[0], room, *entries.shape[2:])
    data[:, :length] = entries
    return TimeBuffer(data, length, like.window, [length])


def _named(state: State) -> str:
    return "nothing" if state is None else f"a {type(state).__name__}"
