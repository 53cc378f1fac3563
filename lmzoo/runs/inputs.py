"""From a corpus, or a stream, to tokens and batches, with progress: training the tokenizer, filling the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from lmzoo.data.batches import Batches, BatchStream
from lmzoo.data.corpora import Corpus, load_corpus
from lmzoo.data.hf_dataset import is_streamed
from lmzoo.data.store import TokenSplit, TokenStore, open_store, require_length
from lmzoo.data.stream_batches import StreamBatches
from lmzoo.data.streaming import StreamedCorpus, load_stream
from lmzoo.data.tokenizers import Tokenizer, train_tokenizer
from lmzoo.train.config import TrainConfig
from lmzoo.train.events import DataEvent, Event

QUIET_SECONDS = 1.0  # what is done by then needs no bar

Emit = Callable[[Event], None]


def load_data(data: str) -> Corpus | StreamedCorpus:
    """What `--data` names: a corpus of `load_corpus`, or of `load_stream` for `hf:...`. Raises `DataError`."""
    return load_stream(data) if is_streamed(data) else load_corpus(data)


def new_tokenizer(spec: str, corpus: Corpus | StreamedCorpus, emit: Emit) -> Tokenizer:
    """The tokenizer `spec`, trained on the training split alone; of a stream, on the first part of it."""
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


def batches_and_validation(
    corpus: Corpus | StreamedCorpus, tokenizer: Tokenizer, config: TrainConfig, context_length: int, emit: Emit
) -> tuple[Batches, TokenSplit]:
    """What a run trains on, and what it is judged by. Raises `DataError` for a text that is too short."""
    if isinstance(corpus, StreamedCorpus):
        val = validation_split(corpus, tokenizer)
        return StreamBatches(corpus.reader(tokenizer), config.batch_size, context_length, config.seed), val
    store = tokenised(corpus, tokenizer, emit)
    require_length(store.train, context_length)
    require_length(store.val, 1)
    return BatchStream(store.train.tokens, config.batch_size, context_length, config.seed), store.val


def validation_split(corpus: Corpus | StreamedCorpus, tokenizer: Tokenizer) -> TokenSplit:
    """The tokens to validate on. Raises `DataError` for fewer than two."""
    streamed = isinstance(corpus, StreamedCorpus)
    split = corpus.validation(tokenizer) if streamed else open_store(corpus, tokenizer).val
    require_length(split, 1)
    return split
