"""Weight-name maps: convert the tensors of a Hugging Face checkpoint to the state dict of an lmzoo model.

A map is data: it has a `Source` for each lmzoo name, which is a name in the checkpoint or a layout of several. `{i}` in
a name stands for the layer, 0 ... n_layers - 1, on both sides:

    {"tokens.weight": "model.embed_tokens.weight", "blocks.{i}.0.before.weight": "model.layers.{i}.input_norm.weight"}

A map may have entries that a model does not need, such as biases: only the names of the model are read. A layout moves
elements without changing them, and takes all sizes from the model's config. So the same map is read backwards to write
a checkpoint (`lmzoo.hf.writer`): `build` of a layout joins parts to our tensor, `split` takes it apart again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmzoo.errors import CheckpointError

if TYPE_CHECKING:
    from lmzoo.hf.writer import Writer


class Layout(ABC):
    """Builds an lmzoo tensor from tensors of the checkpoint. Layouts nest: a part may be a layout itself."""

    @abstractmethod
    def build(self, read: Reader, **index: int) -> Tensor:
        """Returns the tensor. `read(source, **index)` reads a part; `index` holds the values of `{i}` and `{e}`."""

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:  # noqa: ARG002
        """Gives the parts of our tensor to `write(source, part, **index)`: the inverse of `build`."""
        raise CheckpointError(f"lmzoo cannot write the layout {type(self).__name__} yet")


Source = str | Layout


@dataclass(frozen=True)
class Rows(Layout):
    """Parts concatenated along the first axis, as in a fused query, key and value.

    `shares` is the ratio of the parts' rows, as numbers or settings such as "n_heads"; default: equal parts.
    """

    parts: tuple[Source, ...]
    shares: tuple[int | str, ...] | None = None

    def build(self, read: Reader, **index: int) -> Tensor:
        parts = [read(part, **index) for part in self.parts]
        rows = [part.shape[0] for part in parts]
        shares = [read.size(share) for share in self.shares or (1,) * len(parts)]
        if any(n * shares[0] != rows[0] * share for n, share in zip(rows, shares, strict=True)):
            raise CheckpointError(f"parts of {_series(rows)} rows must have the ratio {_series(self.shares or shares)}")
        joined = read.adjacent([part.format(**index) for part in self.parts if isinstance(part, str)])
        return joined if joined is not None and len(joined) == sum(rows) else concatenated(parts)

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        shares = [write.size(share) for share in self.shares or (1,) * len(self.parts)]
        rows = [len(tensor) * share // sum(shares) for share in shares]
        for part, piece in zip(self.parts, tensor.split(rows), strict=True):
            write(part, piece, **index)


def qkv_rows(module: str, kind: str = "weight") -> Rows:
    """Returns the queries, keys and values of grouped attention from three tensors; `kind` is weight or bias."""
    return Rows(tuple(f"{module}{part}_proj.{kind}" for part in "qkv"), ("n_heads", "n_kv_heads", "n_kv_heads"))


def gate_and_up(module: str, kind: str = "weight") -> Rows:
    """Returns the gate and the up projection of a feed-forward layer from two tensors; `kind` is weight or bias."""
    return Rows((f"{module}gate_proj.{kind}", f"{module}up_proj.{kind}"))


@dataclass(frozen=True)
class Transposed(Layout):
    """A matrix stored as (in, out), as in GPT-2: the last two axes are transposed."""

    part: Source

    def build(self, read: Reader, **index: int) -> Tensor:
        return read(self.part, **index).transpose(-2, -1)

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        write(self.part, tensor.transpose(-2, -1), **index)


@dataclass(frozen=True)
class Stacked(Layout):
    """One tensor per expert, stacked along a new first axis; `{e}` stands for 0 ... n - 1, n the setting `count`."""

    part: Source
    count: str

    def build(self, read: Reader, **index: int) -> Tensor:
        return concatenated([read(self.part, **index, e=e)[None] for e in range(read.size(self.count))])

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        for e, part in enumerate(tensor):
            write(self.part, part, **index, e=e)


@dataclass(frozen=True)
class PerHead(Layout):
    """Fused rows ordered by head, and within a head by query, key, value; in lmzoo all q, then all k, then all v."""

    part: Source
    heads: str = "n_heads"  # the setting with the number of heads

    def build(self, read: Reader, **index: int) -> Tensor:
        by_head = read(self.part, **index).unflatten(0, (read.size(self.heads), 3, -1))
        return by_head.transpose(0, 1).flatten(0, 2)

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        by_kind = tensor.unflatten(0, (3, write.size(self.heads), -1))
        write(self.part, by_kind.transpose(0, 1).flatten(0, 2), **index)


@dataclass(frozen=True)
class PerGroup(Layout):
    """Fused rows ordered by group: its heads of queries, then its key, then its value; in lmzoo all q, all k, all v."""

    part: Source
    heads: str = "n_heads"  # the settings with the number of heads, and of groups
    groups: str = "n_kv_heads"

    def build(self, read: Reader, **index: int) -> Tensor:
        groups = read.size(self.groups)
        by_group = read(self.part, **index).unflatten(0, (groups, read.size(self.heads) // groups + 2, -1))
        q, k, v = by_group.split([by_group.shape[1] - 2, 1, 1], dim=1)
        return concatenated([q.flatten(0, 2), k.flatten(0, 2), v.flatten(0, 2)])

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        heads, groups = write.size(self.heads), write.size(self.groups)
        width = len(tensor) // (heads + 2 * groups)
        parts = tensor.split([heads * width, groups * width, groups * width])
        by_group = concatenated([part.unflatten(0, (groups, -1, width)) for part in parts], dim=1)
        write(self.part, by_group.flatten(0, 2), **index)


@dataclass(frozen=True)
class Neighbors(Layout):
    """Rows by head, of which R are rotated in pairs of neighbors; in lmzoo the pairs are i and i + R / 2."""

    part: Source
    rotated: float | str  # the setting with R, the number of rotated rows of a head; or their share of a head
    heads: int | str = 1
    first: bool = False  # the first R rows of a head, not the last

    def build(self, read: Reader, **index: int) -> Tensor:
        return self._moved(read(self.part, **index), read, (-1, 2))

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        write(self.part, self._moved(tensor, write, (2, -1)), **index)

    def _moved(self, tensor: Tensor, sizes: Reader | Writer, shape: tuple[int, int]) -> Tensor:
        """Returns the tensor with the two axes exchanged that the rotated rows of a head have in this shape."""
        by_head = tensor.unflatten(0, (sizes.size(self.heads), -1))
        rows = sizes.size(self.rotated) if isinstance(self.rotated, str) else int(self.rotated * by_head.shape[1])
        start = 0 if self.first else by_head.shape[1] - rows
        before, pairs, after = by_head.tensor_split([start, start + rows], dim=1)
        moved = pairs.unflatten(1, shape).transpose(1, 2).flatten(1, 2)
        return concatenated([before, moved, after], dim=1).flatten(0, 1)


@dataclass(frozen=True)
class Interleaved(Layout):
    """Gate and up projection of all experts, (E, 2 F, ...), of which rows alternate; in lmzoo all rows of the gate come
    first.
    """

    part: Source

    def build(self, read: Reader, **index: int) -> Tensor:
        return read(self.part, **index).unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        write(self.part, tensor.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2), **index)


@dataclass(frozen=True)
class Squeezed(Layout):
    """A tensor with an additional axis of length 1, as in the filters (C, 1, W) of `nn.Conv1d`."""

    part: Source
    axis: int

    def build(self, read: Reader, **index: int) -> Tensor:
        part = read(self.part, **index)
        if part.shape[self.axis] != 1:
            raise CheckpointError(f"axis {self.axis} of shape {tuple(part.shape)} must have the length 1")
        return part.squeeze(self.axis)

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        write(self.part, tensor.unsqueeze(self.axis), **index)


@dataclass(frozen=True)
class Skipped(Layout):
    """A tensor without its first rows, which the model never reads: positions in OPT begin at row 2.

    Written again, these rows are zeros.
    """

    part: Source
    rows: int

    def build(self, read: Reader, **index: int) -> Tensor:
        return read(self.part, **index)[self.rows :]

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        unread = tensor.new_zeros(self.rows, *tensor.shape[1:])
        write(self.part, concatenated([unread, tensor]), **index)


@dataclass(frozen=True)
class Either(Layout):
    """The first of these sources that the checkpoint holds: it has one of several forms, or the layers differ.

    Written is the first whose module of the layer holds other tensors, too, or else the first of all.
    """

    sources: tuple[Source, ...]

    def build(self, read: Reader, **index: int) -> Tensor:
        missing: MissingTensorError | None = None
        for source in self.sources:
            attempt = Reader(
                read.tensors, read.config
            )  # its own names: a part of a form that is not complete is not used
            try:
                tensor = attempt(source, **index)
            except MissingTensorError as error:
                missing = missing or error
                continue
            read.used |= attempt.used
            return tensor
        raise missing or MissingTensorError("no source is given")

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        write.choose(self.sources, tensor, **index)


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


def concatenated(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """`torch.cat`, also on the meta device, where torch's own would import its compiler, which takes seconds."""
    if not parts or not parts[0].is_meta:
        return torch.cat([*parts], dim=dim)
    shapes = [[*part.shape] for part in parts]
    length = sum(shape.pop(dim) for shape in shapes)
    if any(shape != shapes[0] for shape in shapes):
        raise CheckpointError(f"parts of shapes {_series(tuple(part.shape) for part in parts)} must agree")
    shapes[0].insert(dim, length)
    return torch.empty(shapes[0], dtype=parts[0].dtype, device="meta")


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
        raise CheckpointError(f"the checkpoint holds {_series(unused[:3])}{more}, which the model has no place for")


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


def _series(values: Any) -> str:
    return ", ".join(str(value) for value in values)
