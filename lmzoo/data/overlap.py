"""Measures how much of the validation split of a corpus also stands in its training split.

A model predicts copied text by memory, so a low loss on a split with copies proves little. Time and memory are bounded:
of a large corpus, only the beginning of each split is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lmzoo import humanize
from lmzoo.data.corpora import Corpus
from lmzoo.data.shingles import SHINGLE, Lookup, shingles

MAX_TRAIN_CHARS = 100_000_000
MAX_VAL_CHARS = 4_000_000
NOTABLE = 0.01  # from this share on, the description says that losses may reward memory


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """The `share` of the shingles of the validation split that also stand in the training split; None if it has none.

    The first `train_chars` and `val_chars` characters of the splits were compared; `whole` tells whether these are all.
    """

    share: float | None
    train_chars: int
    val_chars: int
    whole: bool

    def __str__(self) -> str:
        if self.share is None:
            return f"The validation split is shorter than {SHINGLE} characters: copied text was not searched for."
        train, val = "the training split", "the validation split"
        if not self.whole:
            train = f"the first {humanize.count(self.train_chars)} characters of {train}"
            val = f"the first {humanize.count(self.val_chars)} characters of {val}"
        more = ": a low loss may come from memory" if self.share >= NOTABLE else ""
        share = f"{humanize.percent(self.share)} % of the {SHINGLE}-character sequences"
        return f"{share} of {val} also stand in {train}{more}."


def measure_overlap(corpus: Corpus) -> Overlap:
    """Compare the splits of `corpus` (for their bounds, see `Overlap`). Raises `DataError` if it cannot be read."""
    train_chars, val_chars = min(corpus.train.n_chars, MAX_TRAIN_CHARS), min(corpus.val.n_chars, MAX_VAL_CHARS)
    whole = (train_chars, val_chars) == (corpus.train.n_chars, corpus.val.n_chars)
    wanted, places = np.unique(shingles("".join(_first(corpus.val.chunks(), val_chars))), return_inverse=True)
    if not wanted.size:
        return Overlap(share=None, train_chars=train_chars, val_chars=val_chars, whole=whole)
    lookup, found = Lookup(wanted), np.zeros(wanted.size, bool)
    before = ""
    for chunk in _first(corpus.train.chunks(), train_chars):
        text = before + chunk
        found[lookup.find(shingles(text))] = True
        before = text[-(SHINGLE - 1) :]
    return Overlap(share=float(found[places].mean()), train_chars=train_chars, val_chars=val_chars, whole=whole)


def _first(chunks: Iterable[str], n_chars: int) -> Iterator[str]:
    """Yields the first `n_chars` characters of `chunks`."""
    left = n_chars
    for chunk in chunks:
        if left <= 0:
            return
        yield chunk[:left]
        left -= len(chunk)
