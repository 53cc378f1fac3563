"""Prepares the inputs of a run: from a text or stream to tokenizer, tokens and batches; long work sends `DataEvent`s.

A streamed corpus (`hf:...`) is tokenized while it is read; any other text is tokenized once, into the token store.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from lmzoo.data.batches import Batches, BatchStream
from lmzoo.data.corpora import Corpus, load_corpus
from lmzoo.data.documents import require_targets
from lmzoo.data.hf_dataset import is_streamed
from lmzoo.data.isolated_batches import IsolatedBatches
from lmzoo.data.isolated_stream import IsolatedStreamBatches
from lmzoo.data.store import Documents, TokenSplit, TokenStore, open_store, open_validation, require_length
from lmzoo.data.stream_batches import StreamBatches
from lmzoo.data.streaming import StreamedCorpus, load_stream
from lmzoo.data.tokenizers import Tokenizer, train_tokenizer
from lmzoo.train.config import TrainConfig
from lmzoo.train.events import DataEvent, EndEvent, Listener

QUIET_SECONDS = 1.0  # training a tokenizer for less than this shows no progress


@dataclass(frozen=True)
class PreparedData:
    """A text and its tokenizer; `compare` makes them once for all of its runs."""

    corpus: Corpus | StreamedCorpus
    tokenizer: Tokenizer
    store: TokenStore | None = None  # None: opened when needed; a stream has no store


def prepare(
    data: str,
    tokenizer: str | Tokenizer,
    emit: Listener,
    documents: Documents = "joined",
    *,
    keep_near_duplicates: bool = False,
) -> PreparedData:
    """Load a text of known length, train its tokenizer unless it is given, and tokenize it. Raises `DataError`."""
    corpus = load_corpus(data, keep_near_duplicates=keep_near_duplicates)
    try:
        shared = new_tokenizer(tokenizer, corpus, emit) if isinstance(tokenizer, str) else tokenizer
        return PreparedData(corpus, shared, tokenize_corpus(corpus, shared, emit, documents))
    finally:
        emit(EndEvent())


def load_data(data: str, *, keep_near_duplicates: bool = False) -> Corpus | StreamedCorpus:
    """Load the text that `--data` names, by `load_corpus`, or by `load_stream` for `hf:...`. Raises `DataError`."""
    return load_stream(data) if is_streamed(data) else load_corpus(data, keep_near_duplicates=keep_near_duplicates)


def new_tokenizer(spec: str, corpus: Corpus | StreamedCorpus, emit: Listener) -> Tokenizer:
    """Train the tokenizer `spec` on the training split only; for a stream, on the first part of it."""
    began = time.monotonic()

    def chunks() -> Iterator[str]:
        done = 0
        for chunk in corpus.chunks("train"):
            yield chunk
            done += len(chunk)
            if time.monotonic() - began > QUIET_SECONDS:
                emit(DataEvent("training the tokenizer", done, corpus.train.n_chars))

    return train_tokenizer(spec, chunks())


def tokenize_corpus(
    corpus: Corpus, tokenizer: Tokenizer, emit: Listener, documents: Documents = "joined"
) -> TokenStore:
    """Tokenize the corpus into the token store in the cache, unless it is there already."""

    def progress(done: int, total: int) -> None:
        emit(DataEvent("tokenizing", done, total))

    return open_store(corpus, tokenizer, documents=documents, progress=progress)


def batches_and_validation(
    data: PreparedData, config: TrainConfig, context_length: int, emit: Listener
) -> tuple[Batches, TokenSplit]:
    """Make the training batches of a run, and its validation split. Raises `DataError` for a text that is too short."""
    corpus, tokenizer, isolated = data.corpus, data.tokenizer, config.documents == "isolated"
    shape = (config.batch_size, context_length, config.seed)
    if isinstance(corpus, StreamedCorpus):
        val, reader = validation_split(corpus, tokenizer, config.documents), corpus.reader(tokenizer)
        return (IsolatedStreamBatches if isolated else StreamBatches)(reader, *shape), val
    store = data.store or tokenize_corpus(corpus, tokenizer, emit, config.documents)
    require_targets(store.val)
    if isolated:
        return IsolatedBatches(store.train, *shape), store.val
    require_length(store.train, context_length)
    return BatchStream(store.train.tokens, *shape), store.val


def validation_split(
    corpus: Corpus | StreamedCorpus, tokenizer: Tokenizer, documents: Documents = "joined"
) -> TokenSplit:
    """Return the tokens of the validation split. Raises `DataError` for one without targets."""
    if isinstance(corpus, StreamedCorpus):
        split = corpus.validation(tokenizer, documents)
    else:
        split = open_validation(corpus, tokenizer, documents)
    require_targets(split)
    return split
