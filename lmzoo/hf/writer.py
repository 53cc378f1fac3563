"""Reads a weight-name map backwards: converts the tensors of an lmzoo model to those of a Hugging Face checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lmzoo.errors import CheckpointError
from lmzoo.hf.layouts import Layout, Source, concatenated
from lmzoo.hf.weights import Head, Weights, entry_of


class Undecided(Exception):
    """Which of several sources is written depends on other tensors of the layer, which are written first."""


class Writer:
    """Collects the tensors of a checkpoint by their `Source`.

    Tensors share memory with ours where a layout permits. With `decides=False`, a choice between sources raises
    `Undecided`.
    """

    def __init__(self, config: Mapping[str, Any], modules: frozenset[str] = frozenset(), *, decides: bool) -> None:
        self.config, self.modules, self.decides = config, modules, decides
        self.tensors: dict[str, Tensor] = {}
        self.pieces: dict[str, tuple[int, dict[int, Tensor]]] = {}  # of tensors that are not complete yet

    def __call__(self, source: Source, tensor: Tensor, **index: int) -> None:
        """Writes a tensor under that name, or its parts by that layout. Raises `CheckpointError` for a second one."""
        if isinstance(source, Layout):
            source.split(tensor, self, **index)
            return
        name = source.format(**index)
        if name in self.tensors:
            raise CheckpointError(f"two tensors of the model are {name} in the checkpoint")
        self.tensors[name] = tensor

    def size(self, size: int | str) -> int:
        """Returns the number itself, or the value of the setting with that name."""
        return self.config[size] if isinstance(size, str) else size

    def add_piece(self, whole: Source, which: int, count: int, piece_HRD: Tensor, **index: int) -> None:
        """Keeps one of `count` parts of the rows R of each head H; the last one completes the tensor `whole`."""
        if isinstance(whole, Layout):
            raise CheckpointError("a part of heads must be of a tensor with a name")
        name = whole.format(**index)
        _, pieces = self.pieces.setdefault(name, (count, {}))
        pieces[which] = piece_HRD
        if len(pieces) == count:
            del self.pieces[name]
            self(name, concatenated([pieces[n] for n in range(count)], dim=1).flatten(0, 1))

    def choose(self, sources: Sequence[Source], tensor: Tensor, **index: int) -> None:
        """Writes a tensor by the first source whose module holds other tensors of the model, or else by the first."""
        if not self.decides:
            raise Undecided
        attempts: list[Writer] = []
        for source in sources:
            attempt = Writer(self.config, self.modules, decides=True)
            try:
                attempt(source, tensor, **index)
            except (CheckpointError, RuntimeError):  # torch raises the latter for a shape that does not fit
                continue
            attempts.append(attempt)
        if not attempts:
            raise CheckpointError(f"a tensor of shape {tuple(tensor.shape)} has no place in the checkpoint")
        self.take(next((each for each in attempts if each.names <= self.modules), attempts[0]))

    def take(self, other: Writer) -> None:
        """Takes over what another writer has collected."""
        for name, tensor in other.tensors.items():
            self(name, tensor)
        for name, (count, pieces) in other.pieces.items():
            for which, piece in pieces.items():
                self.add_piece(name, which, count, piece)

    @property
    def names(self) -> frozenset[str]:
        """The modules of the layers that hold the tensors: "model.layers.3.mlp" of "model.layers.3.mlp.up.weight"."""
        return frozenset(map(_module, {**self.tensors, **self.pieces}))


def unconvert(ours: Mapping[str, Tensor], weights: Weights, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Converts the tensors of an lmzoo model to those of a checkpoint: the inverse of `convert`.

    `config` holds the settings of the model by name. Raises `CheckpointError` naming a tensor that has no place.
    """
    write, postponed = Writer(config, decides=False), list[str]()
    for name, tensor in ours.items():
        attempt = Writer(config, decides=False)
        try:
            _write(attempt, weights, name, tensor)
        except Undecided:
            postponed.append(name)
        else:
            write.take(attempt)
    write.modules, write.decides = write.names, True
    for name in postponed:
        _write(write, weights, name, ours[name])
    if write.pieces:
        raise CheckpointError(f"only a part of {next(iter(write.pieces))} is known")
    return write.tensors


def _write(write: Writer, weights: Weights, name: str, tensor: Tensor) -> None:
    """Writes one of our tensors. Raises `CheckpointError` naming it."""
    entry, index = entry_of(weights, name)
    try:
        write(entry.name if isinstance(entry, Head) else entry, tensor, **index)
    except (CheckpointError, RuntimeError) as error:
        raise CheckpointError(f"{name}: {str(error).splitlines()[0]}") from None


def _module(name: str) -> str:
    """Returns the name of the module of a layer: all up to the part after its number."""
    parts = name.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: number + 2])
