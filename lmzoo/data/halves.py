"""Two halves of the held-out text, by document: one to choose settings on, the other to report."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmzoo.data.corpora import Corpus
from lmzoo.data.store import Documents, TokenSplit, require_length
from lmzoo.data.text import SEPARATOR, read_text, word_end
from lmzoo.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class Half:
    """A half of the validation split: its tokens, and the number of its documents."""

    split: TokenSplit
    documents: int

    @property
    def sha256(self) -> str:
        """The hash of its tokens."""
        return hashlib.sha256(np.ascontiguousarray(self.split.tokens).tobytes()).hexdigest()


def validation_halves(corpus: Corpus, tokenizer: Tokenizer, isolation: Documents = "joined") -> tuple[Half, Half]:
    """Deal the documents of the validation split to two halves of nearly equal length.

    In their order, each document goes to the half that is shorter so far, so documents that stand together are divided.
    A text of one document is cut in the middle, between two words. Raises `DataError` for a text that is too short.
    """
    documents = ["".join(read_text([span])) for span in corpus.val.documents]
    if len(documents) == 1:
        middle = word_end(documents[0], len(documents[0]) // 2)
        documents = [documents[0][:middle], documents[0][middle:]]
    dealt: tuple[list[str], list[str]] = ([], [])
    sizes = [0, 0]
    for document in documents:
        number = int(sizes[1] < sizes[0])
        dealt[number].append(document)
        sizes[number] += len(document)
    first, second = (_encode(corpus, tokenizer, texts, isolation) for texts in dealt)
    return first, second


def _encode(corpus: Corpus, tokenizer: Tokenizer, documents: Sequence[str], isolation: Documents) -> Half:
    separator = SEPARATOR.decode()
    text, ends = separator.join(documents), None
    if isolation == "isolated":
        parts = [*(document + separator for document in documents[:-1]), *documents[-1:]]
        encoded = [tokenizer.encode_array(part) for part in parts]
        ids, ends = np.concatenate(encoded), np.cumsum([part.size for part in encoded])
    else:
        ids = tokenizer.encode_array(text)
    split = TokenSplit(corpus.name, "val", ids, int(ids.size), len(text.encode()), len(text), ends)
    require_length(split, 1)
    return Half(split, len(documents))
