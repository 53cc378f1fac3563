"""Sharded optimizer state: each rank writes its own shards, by torch.distributed.checkpoint to safetensors files.

Optimizer state is the largest part of a checkpoint, two values for each parameter. Nothing is pickled: the offset of
each shard is stored as JSON in the header of its file. Before reading, the shards of each tensor are checked: they must
fill the tensor without gaps.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmzoo import files
from lmzoo.errors import CheckpointError
from lmzoo.storage import reading
from lmzoo.storage.safetensors import open_tensors

_SHARD = re.compile(r"shard-\d+-model-\d+-of-\d+\.safetensors")  # torch's names
_OFFSETS = "DCP_SHARDING_INFO"  # torch's name of the header entry with the offsets
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def write_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write this rank's shards of `tensors` to `folder`, which rank 0 commits when all ranks are done.

    Raises `OSError` on all ranks if one of them cannot write.
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


def shard_shapes(folder: reading.Folder) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return (shape, dtype) of every tensor that is stored in shards; empty for a checkpoint without shards.

    Raises `CheckpointError` if a file is damaged, or if the shards of a tensor leave a gap or overlap.
    """
    pieces: dict[str, list[tuple[list[int], list[int], str]]] = {}
    for name in filter(_SHARD.fullmatch, folder.sizes):
        path = folder.file(name)
        with open_tensors(path) as file:
            try:
                offsets = files.parse_json(file.metadata.get(_OFFSETS, "{}"))
                for key, shape in file.shapes.items():
                    start = offsets[key]["saved_offsets"]
                    pieces.setdefault(key, []).append((start, list(shape), file.dtypes[key]))
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{path}: is not a file of shards: it does not say where they begin") from error
    return {key: _joined(folder.path, key, found) for key, found in pieces.items()}


def read_shards(folder: reading.Folder, into: Mapping[str, Tensor]) -> None:
    """Fill the tensors of `into`, full or sharded over any number of ranks, with the shapes of `shard_shapes`.

    Raises `CheckpointError`.
    """
    from torch.distributed import checkpoint

    unlisted = {path.name for path in folder.path.glob("*.safetensors")} - {*folder.sizes}
    if unlisted:  # torch's reader would read every file in the folder
        raise CheckpointError(f"{folder.path / min(unlisted)}: is not listed in {reading.MANIFEST}")
    reader = checkpoint.HuggingFaceStorageReader(str(folder.path))
    with warnings.catch_warnings():
        # Disabled on purpose: each rank reads its own shards.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        checkpoint.load(dict(into), storage_reader=reader, no_dist=True)


def _joined(folder: Path, key: str, pieces: list[tuple[list[int], list[int], str]]) -> tuple[Any, torch.dtype]:
    """Return shape and dtype of a tensor from its shards, which are cut along the first dimension only."""
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
