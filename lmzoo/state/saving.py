"""Files of decoding states, tensors with their structure as JSON; and the check that a state belongs to a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmzoo import arguments, files
from lmzoo.errors import CheckpointError, InputError
from lmzoo.state.leaves import Constant, TimeBuffer, require_rowless
from lmzoo.state.tree import State, tensors
from lmzoo.storage import atomic, safetensors

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


def check(state: State, like: State) -> None:
    """Raise `InputError` unless `state` has the structure and the types of `like`, with any number of rows and tokens.

    It copies the state, so it is for explaining an error, not for each step.
    """
    kept: dict[str, Tensor] = {}
    try:
        _restored(_described(state, kept), kept, like)
    except (_Unlike, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(f"state is not one of this model: {error}") from error


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
    require_rowless(state)
    return {"constant": None} if isinstance(state, Constant) else {"value": state}


def _as_real(tensor: Tensor) -> Tensor:
    """View a complex tensor as pairs of real numbers: older safetensors versions have no complex type."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


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
