"""Finds the documents of the validation split that nearly equal a document of the training split.

Documents are compared by their shingles, without white space, so that other line ends or indents do not hide a copy. Of
each document of the validation split a sketch is kept: the shingles with the smallest hashes, which are a random sample
of its text. The documents of the training split are read once, in chunks. So memory is bounded: there are at most
`MAX_HASHES` hashes in all (more only for so many documents that each has `LEAST_HASHES`).
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lmzoo import humanize
from lmzoo.data.shingles import SHINGLE, Hashes, Lookup, shingles
from lmzoo.data.text import Span, read_text

# A document is a near-duplicate if more than this share of its shingles is in one document of the training split.
NEARLY = 0.8
MAX_HASHES = 1 << 20
LEAST_HASHES, MOST_HASHES = 16, 256  # of one document
_WHITE_SPACE = string.whitespace.encode()

Numbers = NDArray[np.int64]
Number = TypeVar("Number", np.int64, np.uint64)


@dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """The documents that were removed from a validation split: `share` is the share of the bytes of its documents.

    `rest_sha256` is the hash of the text that is left, "" if nothing was removed.
    """

    documents: int = 0
    n_bytes: int = 0
    share: float = 0.0
    rest_sha256: str = ""

    def __str__(self) -> str:
        if not self.documents:
            return "No document of the validation split nearly equals one of the training split."
        several = self.documents > 1
        documents = humanize.number(self.documents, "document")
        size = f"({self.n_bytes:,} bytes, {humanize.percent(self.share)} %)"
        nearly = "nearly equal documents" if several else "nearly equals a document"
        they = "they were" if several else "it was"
        return f"{documents} {size} of the validation split {nearly} of the training split: {they} left out."


def find_near_duplicates(train: Sequence[Span], val: Sequence[Span]) -> list[int]:
    """Returns the numbers of the documents of `val` that nearly equal one of `train`, in ascending order.

    A document of fewer than `SHINGLE` characters other than white space nearly equals none. Of a document that is cut
    by the split, the two parts are not compared with each other.
    """
    sketches = _Sketches(val)
    cut = train[-1].source == val[0].source and train[-1].stop == val[0].start
    for number, document in enumerate(train):
        sketches.compare(document, other_part=0 if cut and number == len(train) - 1 else None)
    return np.flatnonzero(sketches.found).tolist()


class _Sketches:
    """Sketches of documents, of which `found` tells which ones nearly equal a document that they were compared with."""

    def __init__(self, documents: Sequence[Span]) -> None:
        size = min(max(MAX_HASHES // len(documents), LEAST_HASHES), MOST_HASHES)
        sketches = [_sketch(document, size) for document in documents]
        sizes = np.array([len(sketch) for sketch in sketches])
        # A hash that several documents have has one number.
        hashes, numbers = np.unique(np.concatenate(sketches), return_inverse=True)
        self.found = np.zeros(len(documents), bool)
        self._lookup = Lookup(hashes)
        self._owned = np.split(numbers, np.cumsum(sizes)[:-1])
        self._seen = np.zeros(len(hashes), bool)
        self._needed = np.floor(NEARLY * sizes).astype(np.int64) + 1
        # A near-duplicate lacks too few hashes to lack all of the `sizes - needed + 1` rarest ones of a document. Only
        # these lead to a closer comparison, which the shingles of a common license or template seldom do.
        owners = np.bincount(numbers, minlength=len(hashes))
        rarest = [
            own[np.argsort(owners[own], kind="stable")[: max(0, len(own) - needed + 1)]]
            for own, needed in zip(self._owned, self._needed, strict=True)
        ]
        rare = np.concatenate(rarest)
        order = np.argsort(rare, kind="stable")
        self._documents = np.repeat(np.arange(len(documents)), [len(own) for own in rarest])[order]
        self._starts = np.searchsorted(rare[order], np.arange(len(hashes) + 1))

    def compare(self, document: Span, other_part: int | None) -> None:
        """Compare all documents but number `other_part` with `document`."""
        found = [self._lookup.find(hashes) for hashes in _shingles(document)]
        numbers = _distinct(np.concatenate(found)) if found else np.empty(0, np.int64)
        self._seen[numbers] = True
        for candidate in self._candidates(numbers):
            if candidate != other_part and self._seen[self._owned[candidate]].sum() >= self._needed[candidate]:
                self.found[candidate] = True
        self._seen[numbers] = False

    def _candidates(self, numbers: Numbers) -> list[int]:
        """Returns the documents, among those not found yet, that have one of the hashes `numbers` as a rare one."""
        starts, stops = self._starts[numbers], self._starts[numbers + 1]
        rare = starts < stops
        parts = [self._documents[start:stop] for start, stop in zip(starts[rare], stops[rare], strict=True)]
        if not parts:
            return []
        candidates = _distinct(np.concatenate(parts))
        return candidates[~self.found[candidates]].tolist()


def _sketch(document: Span, size: int) -> Hashes:
    """Returns the `size` smallest different hashes of the shingles of a document."""
    smallest = np.empty(0, np.uint64)
    for hashes in _shingles(document):
        if len(smallest) == size:
            hashes = hashes[hashes < smallest[-1]]
        smallest = _distinct(np.concatenate([smallest, hashes]))[:size].copy()  # a view would keep the rest in memory
    return smallest


def _distinct(values: NDArray[Number]) -> NDArray[Number]:
    """Returns the different values, sorted. `np.unique` is slow for integers, of which it makes a hash table."""
    values = np.sort(values)
    first = np.ones(len(values), bool)
    first[1:] = values[1:] != values[:-1]
    return values[first]


def _shingles(document: Span) -> Iterator[Hashes]:
    """Yields the shingles of a document without white space, chunk by chunk."""
    before = ""
    for chunk in read_text([document]):
        text = before + chunk.encode().translate(None, _WHITE_SPACE).decode()
        yield shingles(text)
        before = text[-(SHINGLE - 1) :]
