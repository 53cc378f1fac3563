"""Corpora, tokenizers, the token store and batches. Importing this imports neither torch nor `tokenizers`.

Batches are torch tensors: import them from `lmzoo.data.batches`.
"""

from __future__ import annotations

from lmzoo.data.corpora import Corpus, corpus_names, load_corpus
from lmzoo.data.store import TokenSplit, TokenStore, open_store, require_length
from lmzoo.data.tokenizers import Tokenizer, check_spec, load_tokenizer, train_tokenizer

__all__ = [
    "Corpus",
    "TokenSplit",
    "TokenStore",
    "Tokenizer",
    "check_spec",
    "corpus_names",
    "load_corpus",
    "load_tokenizer",
    "open_store",
    "require_length",
    "train_tokenizer",
]
