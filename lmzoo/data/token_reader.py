"""Reads the documents of a dataset as one endless token stream, with a position that a checkpoint can store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmzoo.configs import require, require_between
from lmzoo.data.hf_dataset import HFDataset, Place
from lmzoo.data.tokenizer import Tokenizer
from lmzoo.errors import CheckpointError, DataError


@dataclass(frozen=True)
class TokenPosition:
    """A position in the token stream: before token number `token` of a row, in pass `epoch` over the data.

    `row` and `library` are the fields of the `Place` of the row. `sha256` is the hash of its text, which shows if the
    data changed there; None if nothing has been read yet.
    """

    epoch: int = 0
    row: int = 0
    token: int = 0
    library: dict[str, Any] | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        for name in ("epoch", "row", "token"):
            require_between(self, name, 0, float("inf"), below_high=True)
        nothing_read = (self.epoch, self.token, self.library) == (0, 0, None)
        require(self.sha256 is not None or nothing_read, "sha256 must be given where something was read")


class TokenReader:
    """Reads the tokens of the training documents, a separator after each; starts again after the last document.

    The first `skip` rows belong to the validation split and are skipped in every pass. In memory are one document, its
    tokens, and the rows that `datasets` reads ahead.
    """

    def __init__(self, dataset: HFDataset, skip: int, tokenizer: Tokenizer) -> None:
        self._dataset = dataset
        self._skip = skip
        self._tokenizer = tokenizer
        self._begin(0)

    @property
    def position(self) -> TokenPosition:
        """The position of the next token."""
        place = self._place
        return TokenPosition(self._epoch, place.row, self._at, place.library, _sha256(self._text))

    def read(self, count: int) -> np.ndarray:
        """Returns the next `count` tokens. Raises `DataError` for a text that cannot be read or encoded."""
        parts: list[np.ndarray] = []
        while count:
            if self._at == self._ids.size:
                self._next_text()
            part = self._ids[self._at : self._at + count]
            self._at += part.size
            count -= part.size
            parts.append(part)
        return np.concatenate(parts)

    def peek(self) -> np.ndarray:
        """Returns the next token without consuming it."""
        token = self.read(1)
        self._at -= 1
        return token

    def read_row(self, targets: int) -> np.ndarray:
        """Returns the next row of isolated documents: 2 to `targets` + 1 tokens of one document (`data.documents`).

        Raises `DataError` for a text that cannot be read or encoded, and for data without a document of two tokens.
        """
        last = self._epoch + 1
        while self._ids.size - self._at < 2:
            self._next_text()
            if self._epoch > last:
                raise DataError(f"{self._dataset.data}: no document has two tokens")
        row = self._ids[self._at : self._at + targets + 1]
        self._at += row.size - 1  # the last target is the first input of the next row
        return row

    def restore(self, position: TokenPosition) -> None:
        """Continue at `position`. Raises `CheckpointError` if the text there has changed."""
        self._begin(position.epoch, Place(position.row, position.library))
        if position.sha256 is None:
            return
        try:
            self._next_text()
        except DataError as error:
            raise CheckpointError(f"the place in the data where training stopped is not found: {error}") from error
        if (self._epoch, self._place.row, _sha256(self._text)) != (position.epoch, position.row, position.sha256):
            raise CheckpointError(
                f"{self._dataset.data}: row {position.row} differs from the text where training stopped"
            )
        if position.token > self._ids.size:
            raise CheckpointError(f"token={position.token} must be within a text of {self._ids.size} tokens")
        self._at = position.token

    def close(self) -> None:
        """Close the dataset's files."""
        self._texts.close()

    def _begin(self, epoch: int, place: Place | None = None) -> None:
        """Move to the document at `place`, or to the first one of the pass, without reading it."""
        self._epoch = epoch
        self._texts = self._dataset.texts(self._dataset.split, place, self._skip)
        self._place = self._texts.place
        self._text: str | None = None
        self._ids = np.empty(0, dtype=np.int64)
        self._at = 0

    def _next_text(self) -> None:
        place, text = self._texts.place, next(self._texts, None)
        if text is None:
            self._begin(self._epoch + 1)
            place, text = self._texts.place, next(self._texts, None)
            if text is None:
                raise DataError(f"{self._dataset.data}: no text is left to train on")
        self._place, self._text, self._at = place, text, 0
        try:
            self._ids = self._tokenizer.encode_array(text + self._dataset.separator)
        except DataError as error:
            raise DataError(f"{self._dataset.data}: row {place.row}: {error}") from error


def _sha256(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()
