"""From a corpus to tokens, with progress: training the tokenizer, filling the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from lmzoo.data.corpora import Corpus
from lmzoo.data.store import TokenStore, open_store
from lmzoo.data.tokenizers import Tokenizer, train_tokenizer
from lmzoo.train.events import DataEvent, Event

QUIET_SECONDS = 1.0  # what is done by then needs no bar

Emit = Callable[[Event], None]


def new_tokenizer(spec: str, corpus: Corpus, emit: Emit) -> Tokenizer:
    """The tokenizer `spec`, trained on the training split alone."""
    began = time.monotonic()

    def chunks() -> Iterator[str]:
        done = 0
        for chunk in corpus.chunks("train"):
            yield chunk
            done += len(chunk)
            if time.monotonic() - began > QUIET_SECONDS:
                emit(DataEvent("training the tokenizer", done, corpus.train.n_chars))

    return train_tokenizer(spec, chunks())


def tokenised(corpus: Corpus, tokenizer: Tokenizer, emit: Emit) -> TokenStore:
    """The corpus as tokens, from the store where they are in it already."""
    return open_store(corpus, tokenizer, progress=lambda done, total: emit(DataEvent("tokenising", done, total)))
