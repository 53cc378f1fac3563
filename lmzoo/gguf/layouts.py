"""Layouts of tensors in GGUF files, as entries of a map from their names to those of lmzoo (`lmzoo.hf.weights`).

Each takes its sizes from the settings of the model, and the tensors of lmzoo through the reader.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lmzoo.hf.layouts import Layout, Source
from lmzoo.hf.weights import MissingTensorError, Reader


@dataclass(frozen=True)
class Part(Layout):
    """One of the parts that are concatenated along an axis, as queries, keys and values, or gate and up projection.

    `shares` is the ratio of the parts, as numbers or settings.
    """

    whole: Source
    number: int
    shares: tuple[int | str, ...] = (1, 1)
    axis: int = 0

    def build(self, read: Reader, **index: int) -> Tensor:
        whole = read(self.whole, **index)
        shares = [read.size(share) for share in self.shares]
        unit = whole.shape[self.axis] // sum(shares)
        return whole.narrow(self.axis, unit * sum(shares[: self.number]), unit * shares[self.number])


@dataclass(frozen=True)
class ToNeighbors(Layout):
    """Rows by head, whose rotary pairs become neighbors; in lmzoo they are i and i + half of the rotated rows.

    It is the inverse of `lmzoo.hf.layouts.Neighbors`.
    """

    part: Source
    heads: int | str  # the number of heads, or the setting with it
    rotated: str | None = None  # the setting with the number of rotated rows of a head, its last ones; None: all

    def build(self, read: Reader, **index: int) -> Tensor:
        by_head = read(self.part, **index).unflatten(0, (read.size(self.heads), -1))
        rows = by_head.shape[1] if self.rotated is None else read.size(self.rotated)
        plain, pairs = by_head.tensor_split([by_head.shape[1] - rows], dim=1)
        return torch.cat([plain, pairs.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)], dim=1).flatten(0, 1)


@dataclass(frozen=True)
class HeadRows(Layout):
    """One part of the rows of each head, as (heads, rows, features); `turned`: (heads, features, rows)."""

    part: Source
    heads: str
    shares: tuple[str, ...]  # the settings with the numbers of rows
    number: int
    turned: bool = False

    def build(self, read: Reader, **index: int) -> Tensor:
        by_head = read(self.part, **index).unflatten(0, (read.size(self.heads), -1))
        part = by_head.split([read.size(share) for share in self.shares], dim=1)[self.number]
        return part.transpose(1, 2) if self.turned else part


@dataclass(frozen=True)
class ByHead(Layout):
    """The rows of several parts, ordered by head."""

    parts: tuple[Source, ...]
    heads: str

    def build(self, read: Reader, **index: int) -> Tensor:
        parts = [read(part, **index).unflatten(0, (read.size(self.heads), -1)) for part in self.parts]
        return torch.cat(parts, dim=1).flatten(0, 1)


@dataclass(frozen=True)
class Beside(Layout):
    """A tensor of the layers that have another one too; of those without it, if `absent`."""

    part: Source
    other: str
    absent: bool = False

    def build(self, read: Reader, **index: int) -> Tensor:
        if (self.other.format(**index) in read.tensors) == self.absent:
            raise MissingTensorError(f"{self.part} has another place")
        return read(self.part, **index)


@dataclass(frozen=True)
class NegativeExp(Layout):
    """-exp(x), as in A = -exp(A_log) of Mamba."""

    part: Source

    def build(self, read: Reader, **index: int) -> Tensor:
        return -read(self.part, **index).float().exp()


@dataclass(frozen=True)
class PlusOne(Layout):
    """1 + x, as in the norms of Gemma, whose weights are stored around zero."""

    part: Source

    def build(self, read: Reader, **index: int) -> Tensor:
        return read(self.part, **index).float() + 1


@dataclass(frozen=True)
class Shaped(Layout):
    """The same elements in another shape, of numbers and settings; -1 for the rest."""

    part: Source
    shape: tuple[int | str, ...]

    def build(self, read: Reader, **index: int) -> Tensor:
        return read(self.part, **index).reshape([read.size(size) for size in self.shape])


@dataclass(frozen=True)
class Scaled(Layout):
    """A tensor times settings."""

    part: Source
    factors: tuple[str, ...]

    def build(self, read: Reader, **index: int) -> Tensor:
        return read(self.part, **index).float() * math.prod(read.size(factor) for factor in self.factors)
