"""Layouts of tensors in Hugging Face checkpoints: how lmzoo's tensor is built from others, and taken apart again.

A layout moves elements without changing them, and takes all sizes from the settings of the model. So weight-name maps
(`lmzoo.hf.weights`) are read in both directions: `build` joins parts to our tensor, `split` takes it apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmzoo.errors import CheckpointError

if TYPE_CHECKING:
    from lmzoo.hf.weights import Reader
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


def qkv_rows(module: str) -> Rows:
    """Returns the queries, keys and values of grouped attention without biases from three tensors."""
    return Rows(tuple(f"{module}{part}_proj.weight" for part in "qkv"), ("n_heads", "n_kv_heads", "n_kv_heads"))


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
class PartByHead(Layout):
    """One of several parts of fused rows that are ordered by head, and within a head by part.

    `which` is the number of this part, and `shares` the ratio of the rows of all parts, as numbers or settings.
    """

    fused: Source
    heads: int | str
    which: int
    shares: tuple[int | str, ...] = (1, 1)

    def build(self, read: Reader, **index: int) -> Tensor:
        by_head = read(self.fused, **index).unflatten(0, (read.size(self.heads), -1))
        shares = [read.size(share) for share in self.shares]
        unit = by_head.shape[1] // max(1, sum(shares))
        if unit * sum(shares) != by_head.shape[1]:
            raise CheckpointError(f"the {by_head.shape[1]} rows of a head must have the ratio {_series(self.shares)}")
        return by_head.split([unit * share for share in shares], dim=1)[self.which].flatten(0, 1)

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        by_head = tensor.unflatten(0, (write.size(self.heads), -1))
        write.add_piece(self.fused, self.which, len(self.shares), by_head, **index)


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
class Exchanged(Layout):
    """Rows by head that are rotated the other way round; lmzoo's rotation of exchanged halves gives the same scores."""

    part: Source
    heads: int | str

    def build(self, read: Reader, **index: int) -> Tensor:
        return self._exchanged(read(self.part, **index), read)

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        write(self.part, self._exchanged(tensor, write), **index)

    def _exchanged(self, tensor: Tensor, sizes: Reader | Writer) -> Tensor:
        by_half = tensor.unflatten(0, (sizes.size(self.heads), 2, -1))
        return concatenated([by_half[:, 1:], by_half[:, :1]], dim=1).flatten(0, 2)


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
class Number(Layout):
    """A number of shape (1,) that is stored without axes."""

    part: Source

    def build(self, read: Reader, **index: int) -> Tensor:
        return read(self.part, **index).reshape(1)

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        write(self.part, tensor.reshape(()), **index)


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
        return read.first(self.sources, **index)

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        write.choose(self.sources, tensor, **index)


@dataclass(frozen=True)
class InLayer(Layout):
    """A part with a fixed layer, for models whose layers differ."""

    part: Source
    layer: int

    def build(self, read: Reader, **index: int) -> Tensor:
        return read(self.part, **(index | {"i": self.layer}))

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        write(self.part, tensor, **(index | {"i": self.layer}))


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


def _series(values: Any) -> str:
    return ", ".join(str(value) for value in values)
