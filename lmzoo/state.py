"""Decoding state (KV cache, recurrent state) as a value: clone, select rows, measure, save and load.

A state is a tree of dicts, lists and tuples. Its leaves are tensors with the batch dimension first, `TimeBuffer`s,
`Constant`s, plain numbers, or None. Only the layer that made a part reads it; everything else (the sampler, beams,
speculative decoding, prefix caches) works through the functions here, the same for every architecture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmzoo import arguments, files
from lmzoo.errors import CheckpointError, InputError
from lmzoo.storage import atomic, safetensors

State = Any  # a tree as described above; only the layer that made a part knows its content


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


def map_leaves(fn: Callable[[Any], Any], state: State) -> State:
    """Apply `fn` to every leaf and return the new tree; keys are sorted, so that their order does not matter.

    `torch.utils._pytree` works as well, and makes a compiled step 4 to 10 % slower.
    """
    if isinstance(state, dict):
        return {key: map_leaves(fn, state[key]) for key in sorted(state)}
    if isinstance(state, (list, tuple)):
        values = [map_leaves(fn, value) for value in state]
        return type(state)(*values) if hasattr(state, "_fields") else type(state)(values)  # named tuples take arguments
    return fn(state)


def leaves_of(state: State) -> list[Any]:
    """Returns the leaves in the order of `map_leaves`."""
    leaves: list[Any] = []
    map_leaves(leaves.append, state)
    return leaves


def with_leaves(state: State, leaves: Iterable[Any]) -> State:
    """Returns the tree of `state` with new leaves, in the order of `leaves_of`."""
    following = iter(leaves)
    return map_leaves(lambda _: next(following), state)


def map_tensors(fn: Callable[[Tensor], Tensor], state: State) -> State:
    """Apply `fn` to every tensor except constants and return the new tree; `fn` must return a new tensor."""

    def mapped(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return fn(leaf)
        if isinstance(leaf, TimeBuffer):
            return leaf.map(fn)
        return _rowless(leaf)

    return map_leaves(mapped, state)


def _rowless(leaf: Any) -> Any:
    """Return a leaf without a batch dimension unchanged."""
    if not (leaf is None or isinstance(leaf, (int, float, str, Constant))):
        raise InputError(f"a state cannot hold a {type(leaf).__name__}")
    return leaf


def rows(state: State) -> int | None:
    """Returns the number of rows of a state; None if it holds no tensor but constants."""
    if isinstance(state, (Tensor, TimeBuffer)):
        tensor = state if isinstance(state, Tensor) else state.data
        return tensor.shape[0] if tensor.ndim else None
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    for part in parts:
        found = rows(part)
        if found is not None:
            return found
    return None


def tensors(state: State) -> list[Tensor]:
    """Returns every tensor of the state except constants, in a fixed order."""
    buffers = (leaf.data if isinstance(leaf, TimeBuffer) else leaf for leaf in leaves_of(state))
    return [tensor for tensor in buffers if isinstance(tensor, Tensor)]


def clone(state: State) -> State:
    """Returns a copy that shares no memory with `state`, except for constants."""
    return map_tensors(torch.clone, state)


def select(state: State, rows: Tensor | Sequence[int]) -> State:
    """Returns the rows `rows` of a state, in that order; rows may repeat (beam search) or be dropped (finished).

    Raises `InputError` for a row that the state does not have.
    """
    index = _index(rows, state)
    return map_tensors(lambda tensor: tensor.index_select(0, index.to(tensor.device)), state)


def _index(wanted: Tensor | Sequence[int], state: State) -> Tensor:
    """Returns the row numbers as a tensor. Raises `InputError` unless they are integers in [0, number of rows)."""
    try:
        index = torch.as_tensor(wanted)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        index = torch.empty(0, 0)
    if index.ndim == 1 and not len(index):
        return index.long()
    dense = index.layout == torch.strided and index.device.type != "meta"
    whole = not (index.dtype.is_floating_point or index.dtype.is_complex or index.dtype == torch.bool)
    if index.ndim != 1 or not dense or not whole:
        raise InputError(f"rows={wanted!r} must be a sequence of row numbers")
    count = rows(state)
    if index.device.type == "cpu" and count is not None:  # reading values from a GPU would synchronize
        low, high = (int(value) for value in torch.aminmax(index))
        if low < 0 or high >= count:
            raise InputError(f"rows holds {low if low < 0 else high}: the state has the rows 0 to {count - 1}")
    return index.long()


def nbytes(state: State) -> int:
    """Bytes of a state: the readable entries of time buffers, and all other tensors except constants.

    An empty buffer counts as if it were full, so the state of `init_state(1, T)` has the bytes of one row after T
    tokens.
    """
    leaves = leaves_of(state)
    buffers = sum(leaf.nbytes() for leaf in leaves if isinstance(leaf, TimeBuffer))
    return buffers + sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))


def capacity_bytes(state: State) -> int:
    """Bytes of memory that the tensors of the state occupy, with unused entries and entries before the window."""
    return sum(tensor.nbytes for tensor in tensors(state))


def check(state: State, like: State) -> None:
    """Raise `InputError` unless `state` has the structure and the types of `like`, with any number of rows and tokens.

    It copies the state, so it is for explaining an error, not for each step.
    """
    kept: dict[str, Tensor] = {}
    try:
        _restored(_described(state, kept), kept, like)
    except (_Unlike, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(f"state is not one of this model: {error}") from error


FORMAT = "lmzoo decoding state 2"  # version 1 did not name the model
_MAX_STRUCTURE = 16 << 20  # characters of the structure of a state


def save(path: str | Path, state: State) -> None:
    """Write a state atomically to the file `path` (safetensors; the structure of the tree is JSON in the header).

    Decoding from the loaded state is bitwise equal to decoding from `state`, so the file is a prefix cache. Raises
    `CheckpointError` if the file cannot be written.
    """
    kept: dict[str, Tensor] = {}
    header = {"format": FORMAT, "structure": json.dumps(_described(state, kept))}
    atomic.write_file(arguments.path("path", path), safetensors.chunks(kept, header))


def _described(state: State, kept: dict[str, Tensor]) -> dict[str, Any]:
    """Describe the structure as JSON and add the tensors to `kept`, named by numbers."""
    if isinstance(state, (Tensor, TimeBuffer)):
        name = str(len(kept))
        tensor = state if isinstance(state, Tensor) else state.data[:, : state.length]
        kept[name] = _as_real(tensor.detach()).clone(memory_format=torch.contiguous_format)
        if isinstance(state, Tensor):
            return {"tensor": name}
        return {"buffer": name, "capacity": state.data.shape[1], "window": state.window}
    if isinstance(state, dict):
        return {"dict": {key: _described(value, kept) for key, value in state.items()}}
    if isinstance(state, (list, tuple)):
        kind = "list" if isinstance(state, list) else "named" if hasattr(state, "_fields") else "tuple"
        return {kind: [_described(value, kept) for value in state]}
    leaf = _rowless(state)
    return {"constant": None} if isinstance(leaf, Constant) else {"value": leaf}


def _as_real(tensor: Tensor) -> Tensor:
    """View a complex tensor as pairs of real numbers: older safetensors versions have no complex type."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def load(path: str | Path, like: State) -> State:
    """Load the state in the file `path`; nothing in the file is executed.

    `like` is any state of the same model, for example `model.init_state(1)`. It determines the expected structure, the
    types of named tuples, the device of the tensors, and the constants.

    Raises `CheckpointError` for a file that is missing, damaged, or contains the state of another model.
    """
    device = next((tensor.device for tensor in tensors(like)), None)
    try:
        with safetensors.open_tensors(arguments.path("path", path), device) as file:
            if file.metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path}: not a decoding state: its header does not say {FORMAT!r}")
            # Copied into aligned memory: the last bits of a product may depend on the alignment.
            read = {name: file.tensor(name).clone() for name in file.shapes}
            structure = file.metadata.get("structure", "")
        if len(structure) > _MAX_STRUCTURE:
            raise ValueError(f"its structure has more than {_MAX_STRUCTURE} characters")
        state = _restored(files.parse_json(structure), read, like)
        if len({tensor.shape[0] for tensor in tensors(state) if tensor.ndim}) > 1:
            raise ValueError("its tensors have different numbers of rows")
        return state
    except CheckpointError:
        raise
    except (_Unlike, ValueError) as error:
        reason = "the state of another model" if isinstance(error, _Unlike) else "a damaged decoding state"
        raise CheckpointError(f"{path}: {reason}: {error}") from error


class _Unlike(Exception):
    """The file contains the state of another model."""


def _restored(node: object, read: Mapping[str, Tensor], like: State) -> State:
    """Build the state that `node` describes; parts may be None: `layers` is dropped once the window slides."""
    if not isinstance(node, dict) or not node:
        raise ValueError("its structure is not one that lmzoo writes")
    kind, content = next(iter(node.items()))
    if kind == "value":
        if not (content is None or (isinstance(content, (int, float, str)) and type(content) is type(like))):
            raise _Unlike(f"{_described_value(content)} in place of {_named(like)}")
        if isinstance(content, str) and content != like:
            raise _Unlike(f"{content!r} in place of {like!r}")
        if isinstance(content, int) and not 0 <= content < 1 << 62:
            raise ValueError(f"a number in it must be in [0, 2^62), not {_described_value(content)}")
        return content
    if kind == "constant" and isinstance(like, Constant):
        return like
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
    """Returns the tensor `name` after checking its type and shape (except the first `skip` axes) against `like`."""
    tensor = read.get(name) if isinstance(name, str) else None
    if tensor is None:
        raise ValueError(f"it has no tensor {name!r}")
    real = _as_real(like)
    if tensor.dtype != real.dtype or tensor.ndim != real.ndim or tensor.shape[skip:] != real.shape[skip:]:
        raise _Unlike(f"{tensor.dtype} {tuple(tensor.shape)} in place of {real.dtype} {tuple(real.shape)}")
    return torch.view_as_complex(tensor) if like.is_complex() else tensor


def _described_value(content: object) -> str:
    return str(content) if isinstance(content, (int, float)) and abs(content) < 1e99 else f"a {type(content).__name__}"


def _restored_buffer(node: Mapping[str, Any], entries: Tensor, like: TimeBuffer) -> TimeBuffer:
    capacity, length = node.get("capacity"), entries.shape[1]
    if node.get("window") != like.window:
        raise _Unlike(f"a window of {node.get('window')} in place of {like.window}")
    if type(capacity) is not int or capacity < length:
        raise ValueError(f"a buffer of {length} entries has capacity {capacity!r}")
    # Bounded, because a number in a file must not exhaust memory; the buffer grows when needed.
    capacity = min(capacity, 2 * length)
    data = entries.new_zeros(entries.shape[0], capacity, *entries.shape[2:])
    data[:, :length] = entries
    return TimeBuffer(data, length, like.window, [length])


def _named(state: State) -> str:
    return "nothing" if state is None else f"a {type(state).__name__}"
