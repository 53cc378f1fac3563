"""Functions that work on every decoding state, a tree whose parts only its layer knows: clone, select rows, measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lmzoo.errors import InputError
from lmzoo.state.leaves import TimeBuffer, require_rowless

State = Any  # a tree as described in `lmzoo.state`; only the layer that made a part knows its content


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
        require_rowless(leaf)
        return leaf

    return map_leaves(mapped, state)


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
