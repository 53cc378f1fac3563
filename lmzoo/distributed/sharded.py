"""The optimizer's state as shards that each process writes itself: torch.distributed.checkpoint in safetensors files.

They are what is large in a checkpoint, two values for each parameter. Nothing is pickled: where a shard begins in its
tensor is said as JSON in the header of its file. What is read is checked first: the shards of each tensor must fill the
shape that the model asks for, without a gap.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lmzoo.errors import CheckpointError
from lmzoo.storage import atomic

_SHARD = re.compile(r"shard-\d+-model-\d+-of-\d+\.safetensors")  # torch's names
_OFFSETS = "DCP_SHARDING_INFO"  # the entry of a header, by torch's name
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def write_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write what this process has of `tensors` to `folder`, which one of all commits when it is done on all.

    Raises `OSError` when a disk refuses, anywhere.
    """
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.api import CheckpointException

    writer = checkpoint.HuggingFaceStorageWriter(path=str(folder), save_distributed=True)
    try:
        checkpoint.save(dict(tensors), storage_writer=writer)
    except CheckpointException as failure:
        error, _ = next(iter(failure.failures.values()))
        if isinstance(error, OSError):
            raise error from failure
        raise OSError(f"a process could not write its shard: {error}") from failure


def shard_shapes(folder: atomic.Folder) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """(shape, type) of every tensor that lies in shards, empty for a checkpoint without any.

    Raises `CheckpointError` when a file is not whole, or the shards of a tensor leave a gap or overlap.
    """
    pieces: dict[str, list[tuple[list[int], list[int], str]]] = {}
    for name in filter(_SHARD.fullmatch, folder.sizes):
        path = folder.file(name)
        try:
            with safe_open(path, framework="pt") as file:
                offsets = json.loads((file.metadata() or {}).get(_OFFSETS, "{}"))
                for key in file.keys():  # noqa: SIM118 (not a dict)
                    piece = file.get_slice(key)
                    start = offsets[key]["saved_offsets"]
                    pieces.setdefault(key, []).append((start, piece.get_shape(), piece.get_dtype()))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: is not a file of shards: {error}") from error
    return {key: _joined(folder.path, key, found) for key, found in pieces.items()}


def read_shards(folder: atomic.Folder, into: Mapping[str, Tensor]) -> None:
    """Fill `into`, whole tensors or shards of any number of processes, whose shapes are those of `shard_shapes`.

    Raises `CheckpointError`.
    """
    from torch.distributed import checkpoint

    strangers = {path.name for path in folder.path.glob("*.safetensors")} - {*folder.sizes}
    if strangers:  # torch's reader would take whatever lies there
        raise CheckpointError(f"{folder.path / min(strangers)}: is not listed in {atomic.MANIFEST}")
    reader = checkpoint.HuggingFaceStorageReader(str(folder.path))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as is meant: each reads its own
        checkpoint.load(dict(into), storage_reader=reader, no_dist=True)


def _joined(folder: Path, key: str, pieces: list[tuple[list[int], list[int], str]]) -> tuple[Any, torch.dtype]:
    """Shape and type of a tensor in shards, which are cut along the first dimension alone."""
    pieces = sorted(pieces)
    _, first, kind = pieces[0]
    end = 0
    for start, shape, dtype in pieces:
        begins = [end] + [0] * (len(shape) - 1) if shape else []
        if start != begins or shape[1:] != first[1:] or dtype != kind or kind not in _FLOATS:
            raise CheckpointError(f"{folder}: the shards of {key} do not fit together")
        end += shape[0] if shape else 0
    if not first and len(pieces) > 1:
        raise CheckpointError(f"{folder}: the shards of {key} do not fit together")
    return (end, *first[1:]) if first else (), _FLOATS[kind]
