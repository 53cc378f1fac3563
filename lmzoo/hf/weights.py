"""Weight-name maps: convert the tensors of a Hugging Face checkpoint to the state dict of an lmzoo model.

A map is data: it has a `Source` for each lmzoo name, which is a name in the checkpoint or a layout of several
(`lmzoo.hf.layouts`). `{i}` in a name stands for the layer, 0 ... n_layers - 1, on both sides:

    {"tokens.weight": "model.embed_tokens.weight", "blocks.{i}.0.before.weight": "model.layers.{i}.input_norm.weight"}

A map may have entries that a model does not need, such as biases: only the names of the model are read. It is read
backwards to write a checkpoint (`lmzoo.hf.writer`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmzoo.errors import CheckpointError
from lmzoo.hf.layouts import Layout, Source


@dataclass(frozen=True)
class Head:
    """The weight of the head, as an entry of a map. With `tie_embeddings` the lmzoo model has no such weight.

    The checkpoint may then contain it or not; if it does, it must equal the token embedding.
    """

    name: str
    tokens: str  # the name of the token embedding


Weights = Mapping[str, Source | Head]


class MissingTensorError(CheckpointError):
    """A tensor that the checkpoint does not hold."""


class Reader:
    """Reads the tensors of a checkpoint by their `Source`, and records the names that were used."""

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        self.tensors, self.config = tensors, config
        self.used: set[str] = set()

    def __call__(self, source: Source, **index: int) -> Tensor:
        """Returns the tensor with that name, or built by that layout. Raises `MissingTensorError`."""
        if isinstance(source, Layout):
            return source.build(self, **index)
        name = source.format(**index)
        if name not in self.tensors:
            raise MissingTensorError(f"the checkpoint has no {name}")
        self.used.add(name)
        return self.tensors[name]

    def adjacent(self, names: Sequence[str]) -> Tensor | None:
        """Returns tensors concatenated without a copy, if the checkpoint is mapped and they follow each other."""
        find = getattr(self.tensors, "adjacent", None)
        return find(names) if names and callable(find) else None

    def first(self, sources: Sequence[Source], **index: int) -> Tensor:
        """Returns the tensor of the first of these sources that the checkpoint holds completely."""
        missing: MissingTensorError | None = None
        for source in sources:
            attempt = Reader(self.tensors, self.config)  # with names of its own: of other sources, none is used
            try:
                tensor = attempt(source, **index)
            except MissingTensorError as error:
                missing = missing or error
                continue
            self.used |= attempt.used
            return tensor
        raise missing or MissingTensorError("no source is given")

    def size(self, size: int | str) -> int:
        """Returns the number itself, or the value of the setting with that name."""
        return self.config[size] if isinstance(size, str) else size

    def ours(self, weights: Weights, name: str) -> Tensor:
        """Returns the tensor of the lmzoo model with this name. Raises `CheckpointError` for a wrong shape, too."""
        entry, index = entry_of(weights, name)
        try:
            return self(entry.name if isinstance(entry, Head) else entry, **index)
        except (CheckpointError, RuntimeError, IndexError) as error:  # torch raises the last two for a wrong shape
            kind = MissingTensorError if isinstance(error, MissingTensorError) else CheckpointError
            raise kind(f"{name}: {str(error).splitlines()[0]}") from None


def convert(source: Mapping[str, Tensor], weights: Weights, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Converts the tensors `source` of a checkpoint to lmzoo tensors by the map `weights`, as far as both have them.

    `config` holds the settings of the lmzoo model by name. Where a layout permits, the result shares memory with
    `source`. Raises `CheckpointError` naming a tensor that has a wrong shape, or that nothing uses.
    """
    read = Reader(source, config)
    ours: dict[str, Tensor] = {}
    for template, entry in weights.items():
        if isinstance(entry, Head) and config["tie_embeddings"]:
            if entry.name in source and not torch.equal(read(entry.name), read(entry.tokens)):
                raise not_tied(entry)
            continue
        for i in range(config["n_layers"]) if "{i}" in template else (0,):
            name = template.format(i=i)
            with suppress(MissingTensorError):
                ours[name] = read.ours(weights, name)
    check_used(source, read.used)
    return ours


def tied_heads(weights: Weights, names: Iterable[str]) -> list[Head]:
    """Returns the heads in the map that a model with these names has no weight for: it uses the token embedding."""
    heads = {name: entry for name, entry in weights.items() if isinstance(entry, Head)}
    own = {heads[name].name for name in names if name in heads}
    return [head for head in heads.values() if head.name not in own]


def not_tied(head: Head) -> CheckpointError:
    """Returns the error for a head that must equal the token embedding and does not."""
    return CheckpointError(f"tie_embeddings=True, but in the checkpoint {head.name} differs from {head.tokens}")


def check_used(names: Iterable[str], used: Iterable[str]) -> None:
    """Raises `CheckpointError` if the checkpoint holds tensors that were not used."""
    unused = sorted({*names} - {*used})
    if unused:
        more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
        raise CheckpointError(f"the checkpoint holds {', '.join(unused[:3])}{more}, which the model has no place for")


def entry_of(weights: Weights, name: str) -> tuple[Source | Head, dict[str, int]]:
    """Returns the entry of a map for one of our names, and the index of the layer in it."""
    if name in weights:
        return weights[name], {}
    parts = name.split(".")
    place = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    if place is not None:
        template = ".".join(["{i}" if n == place else part for n, part in enumerate(parts)])
        if template in weights:
            return weights[template], {"i": int(parts[place])}
    raise CheckpointError(f"{name}: no tensor of the checkpoint is known for it")
