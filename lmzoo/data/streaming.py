"""A streamed corpus, for datasets larger than the disk: `--data hf:NAME`.

Only its first part is read before training begins: to identify the corpus by a hash, to hold out documents for
validation if the dataset has no validation split, to train the tokenizer, and to count the documents of the validation
split that nearly equal one of it. None is left out, since others may have copies in the part that was not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice

import numpy as np

from lmzoo.data.corpora import Split
from lmzoo.data.hf_dataset import HFDataset
from lmzoo.data.near_duplicates import find_near_duplicates
from lmzoo.data.store import Documents, TokenSplit
from lmzoo.data.text import Span, utf8
from lmzoo.data.token_reader import TokenReader
from lmzoo.data.tokenizer import Tokenizer
from lmzoo.errors import DataError

PREFIX_BYTES = 10 << 20  # prefix of the training split that is read before training
VALIDATION_BYTES = 1 << 20  # limit for the validation split of the dataset
HELD_OUT_FRACTION = 0.1  # share of the prefix, if there is no such split


@dataclass(frozen=True)
class StreamedPart:
    """A part of a split: `rows` documents from row `start` on, each followed by the separator of the dataset."""

    dataset: HFDataset
    split: str
    start: int
    rows: int
    n_bytes: int
    n_chars: int

    def chunks(self) -> Iterator[str]:
        """Yields the text, one row at a time."""
        for text in islice(self.dataset.texts(self.split), self.start, self.start + self.rows):
            yield text + self.dataset.separator


@dataclass(frozen=True)
class StreamedCorpus:
    """A streamed dataset to train on. Its fields are named as in `Corpus`.

    `sha256` is the hash of the URLs or sizes of its files, its column, and the text of `train` and `val`. `train` is
    the part of the training split that the tokenizer is trained on, `val` is the validation text. `held_out` is the
    number of rows at the beginning of the training split that belong to `val`. `copies` is the number of documents of
    `val` that nearly equal one of `train`.
    """

    name: str
    sha256: str
    dataset: HFDataset
    held_out: int
    train: StreamedPart
    val: StreamedPart
    copies: int = 0

    @property
    def copies_note(self) -> str:
        """States how many documents are copies, and what was not searched."""
        return (
            f"{self.copies:,} of the {self.val.rows:,} documents of the validation split nearly equal one of the first "
            f"{self.train.rows:,} training documents; the rest of a stream is not searched, and none is left out"
        )

    def chunks(self, split: Split) -> Iterator[str]:
        """Yields the text of `train` or `val`, one row at a time."""
        return (self.train if split == "train" else self.val).chunks()

    def reader(self, tokenizer: Tokenizer) -> TokenReader:
        """Returns a reader of all training documents as tokens."""
        return TokenReader(self.dataset, self.held_out, tokenizer)

    def validation(self, tokenizer: Tokenizer, documents: Documents = "joined") -> TokenSplit:
        """Returns the tokens of `val`. Raises `DataError` for a text that the tokenizer cannot encode."""
        dtype = id_type(tokenizer)
        parts = [tokenizer.encode_array(chunk).astype(dtype) for chunk in self.val.chunks()]
        tokens = np.concatenate([np.empty(0, dtype), *parts])
        ends = np.cumsum([part.size for part in parts]) if documents == "isolated" else None
        return TokenSplit(self.name, "val", tokens, tokens.size, self.val.n_bytes, self.val.n_chars, ends)


def load_stream(data: str) -> StreamedCorpus:
    """Open the dataset `data` ("hf:...", see `hf_dataset.parse_spec`) and read its first part.

    The validation documents come from its validation split (or else its test split), up to the row that reaches
    `VALIDATION_BYTES`. In a dataset without one, the first rows are held out from training, up to the row that reaches
    `HELD_OUT_FRACTION` of the first `PREFIX_BYTES` of its text.

    Raises `DataError` (one line) when it cannot be opened or read, or has too few rows.
    """
    dataset = HFDataset(data)
    digest = hashlib.sha256("\n".join([dataset.column, *dataset.files, ""]).encode())
    rows = _first_rows(dataset, dataset.split, PREFIX_BYTES, digest)
    if dataset.validation:
        held_out = 0
        val = dataset.validation, _first_rows(dataset, dataset.validation, VALIDATION_BYTES, digest)
    else:
        ends = list(accumulate(map(len, rows)))
        held_out = 1 + next(i for i, end in enumerate(ends) if end >= HELD_OUT_FRACTION * ends[-1]) if ends else 0
        val = dataset.split, rows[:held_out]
    if len(rows) == held_out:
        raise DataError(f"{data}: has {len(rows)} rows in its split {dataset.split!r}: none is left to train on")
    return StreamedCorpus(
        name=data,
        sha256=digest.hexdigest(),
        dataset=dataset,
        held_out=held_out,
        train=_part(dataset, dataset.split, held_out, rows[held_out:]),
        val=_part(dataset, val[0], 0, val[1]),
        copies=len(find_near_duplicates(_spans(rows[held_out:]), _spans(val[1]))) if val[1] else 0,
    )


def id_type(tokenizer: Tokenizer) -> np.dtype:
    """The smallest integer type that fits all ids."""
    return np.min_scalar_type(tokenizer.vocab_size - 1)


def _first_rows(dataset: HFDataset, split: str, enough: int, digest: hashlib._Hash) -> list[bytes]:
    """Returns the text of the first rows of `split`: at least two, up to the one that reaches `enough` bytes."""
    rows: list[bytes] = []
    total = 0
    for text in dataset.texts(split):
        rows.append(utf8(text + dataset.separator))
        digest.update(rows[-1])
        total += len(rows[-1])
        if total >= enough and len(rows) >= 2:
            break
    return rows


def _part(dataset: HFDataset, split: str, start: int, rows: list[bytes]) -> StreamedPart:
    n_bytes, n_chars = sum(map(len, rows)), sum(len(row.decode()) for row in rows)
    return StreamedPart(dataset, split, start, len(rows), n_bytes, n_chars)


def _spans(rows: list[bytes]) -> list[Span]:
    return [Span(row, 0, len(row)) for row in rows]
