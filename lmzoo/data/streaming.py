"""A corpus that is read as it is needed, for texts that fit no disk: `--data hf:NAME`.

Only its first part is read before training begins: to tell it from other corpora, to hold texts out for validation
where it has none of its own, and to make the tokenizer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice

import numpy as np

from lmzoo.data.corpora import Split
from lmzoo.data.hf_dataset import HFDataset
from lmzoo.data.store import TokenSplit
from lmzoo.data.token_reader import TokenReader
from lmzoo.data.tokenizers import Tokenizer, utf8
from lmzoo.errors import DataError

HEAD_BYTES = 10 << 20  # of the training split: what is looked at before training
VALIDATION_BYTES = 1 << 20  # of the dataset's own validation split
HELD_OUT_FRACTION = 0.1  # of the head, where there is no such split


@dataclass(frozen=True)
class StreamedPart:
    """The first part of a split: `rows` texts from row `start` on, each followed by the dataset's separator."""

    dataset: HFDataset
    split: str
    start: int
    rows: int
    n_bytes: int
    n_chars: int

    def chunks(self) -> Iterator[str]:
        """The text, a row at a time."""
        for text in islice(self.dataset.texts(self.split), self.start, self.start + self.rows):
            yield text + self.dataset.separator


@dataclass(frozen=True)
class StreamedCorpus:
    """A dataset to train on. What it has in common with a `Corpus` has the same names.

    `sha256` is the hash of where its files are from or how long they are, its column, and the text of `train` and
    `val`: the part of the training texts that the tokenizer is made from, and the texts to validate on. `held_out` is
    the number of rows of the training split, at its beginning, that belong to `val`.
    """

    name: str
    sha256: str
    dataset: HFDataset
    held_out: int
    train: StreamedPart
    val: StreamedPart

    def chunks(self, split: Split) -> Iterator[str]:
        """The text of `train` or of `val`, a row at a time."""
        return (self.train if split == "train" else self.val).chunks()

    def reader(self, tokenizer: Tokenizer) -> TokenReader:
        """All the training texts as tokens."""
        return TokenReader(self.dataset, self.held_out, tokenizer)

    def validation(self, tokenizer: Tokenizer) -> TokenSplit:
        """The tokens of `val`. Raises `DataError` for a text that the tokenizer has no tokens for."""
        dtype = id_type(tokenizer)
        parts = [tokenizer.encode_array(chunk).astype(dtype) for chunk in self.val.chunks()]
        tokens = np.concatenate([np.empty(0, dtype), *parts])
        return TokenSplit(self.name, "val", tokens, tokens.size, self.val.n_bytes, self.val.n_chars)


def load_stream(data: str) -> StreamedCorpus:
    """Open the dataset `data` ("hf:...", see `hf_dataset.parse_spec`) and read its first part.

    The texts to validate on are those of its own validation split (or else of its test split), up to the one that
    completes `VALIDATION_BYTES`. A dataset without one has its first rows held out from training, up to the one that
    completes `HELD_OUT_FRACTION` of the first `HEAD_BYTES` of its text.

    Raises `DataError` of one line when it cannot be opened or read, or holds too little.
    """
    dataset = HFDataset(data)
    digest = hashlib.sha256("\n".join([dataset.column, *dataset.files, ""]).encode())
    sizes = _measure(dataset, dataset.split, HEAD_BYTES, digest)
    if dataset.validation:
        held_out = 0
        val = dataset.validation, _measure(dataset, dataset.validation, VALIDATION_BYTES, digest)
    else:
        ends = list(accumulate(n_bytes for n_bytes, _ in sizes))
        held_out = 1 + next(i for i, end in enumerate(ends) if end >= HELD_OUT_FRACTION * ends[-1]) if ends else 0
        val = dataset.split, sizes[:held_out]
    if len(sizes) == held_out:
        raise DataError(f"{data}: has {len(sizes)} rows in its split {dataset.split!r}: none is left to train on")
    return StreamedCorpus(
        name=data,
        sha256=digest.hexdigest(),
        dataset=dataset,
        held_out=held_out,
        train=_part(dataset, dataset.split, held_out, sizes[held_out:]),
        val=_part(dataset, val[0], 0, val[1]),
    )


def id_type(tokenizer: Tokenizer) -> np.dtype:
    """The smallest type that all ids fit in."""
    return np.min_scalar_type(tokenizer.vocab_size - 1)


def _measure(dataset: HFDataset, split: str, enough: int, digest: hashlib._Hash) -> list[tuple[int, int]]:
    """Bytes and characters of the first rows of `split`, at least two, up to the one that completes `enough` bytes."""
    sizes: list[tuple[int, int]] = []
    total = 0
    for text in dataset.texts(split):
        data = utf8(text + dataset.separator)
        digest.update(data)
        sizes.append((len(data), len(text) + len(dataset.separator)))
        total += len(data)
        if total >= enough and len(sizes) >= 2:
            break
    return sizes


def _part(dataset: HFDataset, split: str, start: int, sizes: list[tuple[int, int]]) -> StreamedPart:
    return StreamedPart(dataset, split, start, len(sizes), sum(b for b, _ in sizes), sum(c for _, c in sizes))
