"""Reads the tensors of a safetensors file through a memory map, whose pages are given back when they were used.

A mapped tensor takes no memory until it is read; then its pages are resident, beside a copy that is made of it. With
`release` after each copy, loading a model needs little more memory than its weights. Writing to a mapped tensor changes
a copy of its page, never the file.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmzoo import files
from lmzoo.errors import CheckpointError
from lmzoo.storage.safetensors import dtype_named, open_tensors


class MappedTensors(Mapping[str, Tensor]):
    """The tensors of one file by name; each is a view of the map, made when it is asked for.

    The file must not be cut off while a view is in use: the process would be killed. Raises `CheckpointError` for a
    file that is damaged or incomplete, or that holds a tensor twice.
    """

    def __init__(self, path: Path) -> None:
        with open_tensors(path) as file:  # checks that the tensors fill the file, and that sizes fit shapes and dtypes
            self.path, self.shapes, self.dtypes = path, file.shapes, file.dtypes
        try:
            with files.open_regular(path) as opened:
                self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            reason = files.reason(error) if isinstance(error, OSError) else str(error)
            raise CheckpointError(f"{path}: cannot be mapped: {reason}") from error
        (length,) = struct.unpack("<Q", self._map[:8])
        header = json.loads(self._map[8 : 8 + length], object_pairs_hook=self._without_doubles)
        self._offsets = {name: 8 + length + header[name]["data_offsets"][0] for name in self.shapes}

    def _without_doubles(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len({*names}) < len(names):
            double = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(f"{self.path}: holds {double!r} twice")
        return dict(pairs)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, name: str) -> Tensor:
        return self._view(name, self.shapes[name])

    def _view(self, first: str, shape: tuple[int, ...]) -> Tensor:
        """Returns the elements from the beginning of the tensor `first` on."""
        dtype, count = self.dtype(first), torch.Size(shape).numel()
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=self._offsets[first]).view(shape)

    def adjacent(self, names: Sequence[str]) -> Tensor | None:
        """Returns tensors concatenated along the first axis without a copy, if they follow each other in the file."""
        first, rows, end = names[0], 0, self._offsets[names[0]]
        for name in names:
            shape = self.shapes[name]
            fits = self.dtypes[name] == self.dtypes[first] and shape[1:] == self.shapes[first][1:]
            if not (shape and fits and self._offsets[name] == end):
                return None
            rows, end = rows + shape[0], end + torch.Size(shape).numel() * self.dtype(name).itemsize
        return self._view(first, (rows, *self.shapes[first][1:]))

    def dtype(self, name: str) -> torch.dtype:
        """Returns the dtype of a tensor. Raises `CheckpointError` for one that models do not use."""
        found = dtype_named(self.dtypes[name])
        if found is None:
            raise CheckpointError(f"{self.path}: {name} is of type {self.dtypes[name]}, which lmzoo does not read")
        return found

    @property
    def bytes(self) -> int:
        """The size of the file."""
        return len(self._map)

    def release(self) -> None:
        """Gives the pages of the map back to the system; a view that is read later reads the file again."""
        self._map.madvise(mmap.MADV_DONTNEED)
