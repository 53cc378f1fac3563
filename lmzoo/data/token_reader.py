"""The texts of a dataset as one endless row of tokens, with a position that a few numbers hold."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmzoo.configs import require, require_between
from lmzoo.data.hf_dataset import HFDataset, Place
from lmzoo.data.tokenizers import Tokenizer
from lmzoo.errors import CheckpointError, DataError


@dataclass(frozen=True)
class TokenPosition:
    """A place in the tokens: before number `token` of those of a row's text, in pass `epoch` over the data.

    `row` and `library` are those of the row's `Place`. `sha256` is the hash of its text, by which a stream that was
    changed there is noticed; None where nothing has been read yet.
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
    """The tokens of a dataset's training texts, each text followed by the separator; after the last, the first again.

    The first `skip` rows belong to the validation, in every pass. Held at a time are one text, its tokens, and what
    `datasets` reads ahead.
    """

    def __init__(self, dataset: HFDataset, skip: int, tokenizer: Tokenizer) -> None:
        self._dataset = dataset
        self._skip = skip
        self._tokenizer = tokenizer
        self._begin(0)

    @property
    def position(self) -> TokenPosition:
        """Where the next token is read."""
        place = self._place
        return TokenPosition(self._epoch, place.row, self._at, place.library, _sha256(self._text))

    def read(self, count: int) -> np.ndarray:
        """The next `count` tokens. Raises `DataError` for a text that cannot be read or has no tokens."""
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
        """The next token, which stays the next one."""
        token = self.read(1)
        self._at -= 1
        return token

    def restore(self, position: TokenPosition) -> None:
        """Go on at `position`. Raises `CheckpointError` unless it is in the same text as when it was taken."""
        self._begin(position.epoch, Place(position.row, position.library))
        if position.sha256 is None:
            return
        try:
            self._next_text()
        except DataError as error:
            raise CheckpointError(f"the place in the data where training stopped is not found: {error}") from error
        if (self._epoch, self._place.row, _sha256(self._text)) != (position.epoch, position.row, position.sha256):
            raise CheckpointError(
                f"{self._dataset.data}: row {position.row} is not the text that training stopped in: the data changed"
            )
        if position.token > self._ids.size:
            raise CheckpointError(f"token={position.token} must be within a text of {self._ids.size} tokens")
        self._at = position.token

    def close(self) -> None:
        """Close the dataset's files."""
        self._texts.close()

    def _begin(self, epoch: int, place: Place | None = None) -> None:
        """Stand before the text at `place`, or before the first one of the pass, with nothing read."""
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
