"""The files with the weights of a Hugging Face checkpoint: one safetensors file, or shards listed in an index.

A checkpoint comes from outside: names of shards are plain names of files in its folder, every tensor is in one file,
and pickled files are refused, because reading one can run any code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from lmzoo.errors import CheckpointError
from lmzoo.hf.architecture import Architecture, refused
from lmzoo.hf.weights import Head, Weights
from lmzoo.storage import reading
from lmzoo.storage.mapped import MappedTensors

ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


class Shards(Mapping[str, Tensor]):
    """All tensors of a checkpoint by the names of an architecture, mapped and not read.

    Buffers that the architecture does not need are left out, old names are replaced, and the prefix is added to names
    that were saved without it. `{n_layers}` in the pattern of a buffer stands for the number of layers. Raises
    `CheckpointError` for two names of one tensor.
    """

    def __init__(
        self, files: list[MappedTensors], architecture: Architecture, weights: Weights, n_layers: object = 0
    ) -> None:
        self.files = files
        buffers = [buffer.format(n_layers=n_layers) for buffer in architecture.buffers]
        names = [self._known(name, architecture) for file in files for name in file]
        heads = {entry.name for entry in weights.values() if isinstance(entry, Head)}  # they have no prefix
        whole = any(name.startswith(architecture.prefix) for name in names)
        self._places: dict[str, tuple[MappedTensors, str]] = {}
        for file in files:
            for name in file:
                if any(fnmatchcase(name, buffer) for buffer in buffers):
                    continue
                full = self._known(name, architecture)
                if not whole and full not in heads:
                    full = f"{architecture.prefix}{full}"
                if full in self._places:
                    raise CheckpointError(f"{file.path}: holds {name!r} and {self._places[full][1]!r}, which are one")
                self._places[full] = (file, name)

    @staticmethod
    def _known(name: str, architecture: Architecture) -> str:
        """Returns the name by which the architecture knows a tensor, perhaps without its prefix."""
        name = architecture.old_names.get(name, name)
        begin = next((begin for begin in architecture.prefixes if name.startswith(begin)), "")
        return architecture.prefixes[begin] + name.removeprefix(begin) if begin else name

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, name: str) -> Tensor:
        file, saved = self._places[name]
        return file[saved]

    def adjacent(self, names: Sequence[str]) -> Tensor | None:
        """Returns tensors concatenated along the first axis without a copy, if they follow each other in one file."""
        places = [self._places[name] for name in names]
        file = places[0][0]
        return file.adjacent([saved for _, saved in places]) if all(other is file for other, _ in places) else None

    def on_meta(self) -> dict[str, Tensor]:
        """Returns tensors without memory of the same shapes and dtypes."""
        return {
            name: torch.empty(file.shapes[saved], dtype=file.dtype(saved), device="meta")
            for name, (file, saved) in self._places.items()
        }

    def release(self) -> None:
        """Gives the pages of all files back to the system."""
        for file in self.files:
            file.release()


def open_files(folder: Path) -> list[MappedTensors]:
    """Maps the files of a checkpoint. Raises `CheckpointError` naming the file and the rule."""
    if os.path.lexists(folder / ONE_FILE):
        return [MappedTensors(folder / ONE_FILE)]
    if not os.path.lexists(folder / INDEX):
        raise _without_weights(folder)
    places = weight_map(folder / INDEX)
    files = [MappedTensors(folder / name) for name in sorted({*places.values()})]
    for file in files:
        for name in file:
            if places.get(name) != file.path.name:
                where = f"the index says {places[name]}" if name in places else "which the index does not list"
                raise CheckpointError(f"{file.path}: holds {name!r}, {where}")
    found = {name for file in files for name in file}
    for name, shard in places.items():
        if name not in found:
            raise CheckpointError(f"{folder / shard}: lacks the tensor {name!r}, which the index lists")
    return files


def weight_map(path: Path) -> dict[str, str]:
    """Returns the file of each tensor by its name."""
    places = reading.read_json(path, links=True).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{path}: must hold weight_map, an object with the file of each tensor")
    for shard in places.values():
        if not isinstance(shard, str) or not re.fullmatch(r"\w[\w.-]*\.safetensors", shard, re.ASCII):
            raise CheckpointError(f"{path}: {refused('a file', shard, 'must be NAME.safetensors in the same folder')}")
    return places


def _without_weights(folder: Path) -> CheckpointError:
    pickles = sorted(name for name in os.listdir(folder) if name.endswith(_PICKLES))
    if pickles:
        return CheckpointError(
            f"{folder / pickles[0]}: is a pickled file, and reading one can run any code: convert it to {ONE_FILE} "
            "(docs/hugging-face.md says how)"
        )
    return CheckpointError(f"{folder}: has neither {ONE_FILE} nor {INDEX}")
