"""Memory-mapped token files: a corpus is tokenized only once, in bounded memory.

The store of a split is two files in the cache: the ids (`.bin`, little-endian uint16, or uint32 for more than 65,536
tokens) and a header (`.json`). Their names come from the hashes of the corpus and the tokenizer, and the split. The
header is written last, so a store that a killed process left incomplete is never used; it contains the hash of the ids,
so a damaged store is not used either. A store of isolated documents, each of which is tokenized apart, has a third file
with the places where they end (`.ends`, little-endian int64).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lmzoo import files
from lmzoo.data.cache import cache_dir, cache_file
from lmzoo.data.characters import UnknownCharacterError
from lmzoo.data.corpora import Corpus, Split, TextPart
from lmzoo.data.text import whole_words
from lmzoo.data.tokenizer import Tokenizer
from lmzoo.errors import DataError
from lmzoo.storage.atomic import file_sha256

_FORMAT = 1
_MAX_HEADER_BYTES = 1 << 16
_ENDS = np.dtype("<i8")

Progress = Callable[[int, int], None]
Documents = Literal["joined", "isolated"]


@dataclass(frozen=True)
class TokenSplit:
    """The tokens of one split.

    `tokens` is a read-only memory map of `n_tokens` ids. They encode `n_bytes` UTF-8 bytes and `n_chars` characters of
    text, so a loss in nats per token is loss * n_tokens / (ln 2 * n_bytes) bits per byte. Of isolated documents, `ends`
    are the places after the last token of each; None: the documents are joined.
    """

    corpus: str
    split: Split
    tokens: np.ndarray
    n_tokens: int
    n_bytes: int
    n_chars: int
    ends: np.ndarray | None = None


@dataclass(frozen=True)
class TokenStore:
    """The tokens of a corpus, with the hashes of the text and the tokenizer."""

    corpus: str
    corpus_sha256: str
    tokenizer_sha256: str
    train: TokenSplit
    val: TokenSplit


def open_store(
    corpus: Corpus, tokenizer: Tokenizer, *, documents: Documents = "joined", progress: Progress | None = None
) -> TokenStore:
    """Tokenize `corpus` with `tokenizer`, or open its tokens from the cache.

    `progress(done, total)` is called with bytes of text during tokenization; it is not called if all tokens are cached.
    Raises `DataError` for a text that the tokenizer cannot encode, and when the cache cannot be written.
    """
    splits = _open_splits(corpus, tokenizer, {"train": corpus.train, "val": corpus.val}, documents, progress)
    return TokenStore(corpus.name, corpus.sha256, tokenizer.sha256, splits["train"], splits["val"])


def open_validation(corpus: Corpus, tokenizer: Tokenizer, documents: Documents = "joined") -> TokenSplit:
    """Like `open_store`, for the validation split alone: to evaluate, the training split need not be encodable."""
    return _open_splits(corpus, tokenizer, {"val": corpus.val}, documents, None)["val"]


def _open_splits(
    corpus: Corpus,
    tokenizer: Tokenizer,
    wanted: Mapping[Split, TextPart],
    documents: Documents,
    progress: Progress | None,
) -> dict[Split, TokenSplit]:
    """Returns the tokens of the `wanted` splits; those that are not in the cache are made."""
    parts, sha256 = wanted.items(), tokenizer.sha256
    headers = {split: _header(corpus, tokenizer, sha256, split, part, documents) for split, part in parts}
    found = {split: _open(corpus, split, headers[split]) for split, _ in parts}
    missing = [(split, part) for split, part in parts if found[split] is None]
    total = sum(part.n_bytes for _, part in missing)
    done = 0
    for split, part in missing:
        _tokenize(corpus, tokenizer, split, part, headers[split], _shifted(progress, done, total))
        done += part.n_bytes
        found[split] = _open(corpus, split, headers[split])
    splits = {split: tokens for split, tokens in found.items() if tokens is not None}
    if len(splits) < len(found):
        raise DataError(f"the token store in {cache_dir('tokens')} was changed while it was opened; try again")
    return splits


def require_length(split: TokenSplit, context_length: int) -> None:
    """Raise `DataError` unless the split has at least `context_length` + 1 tokens."""
    if split.n_tokens <= context_length:
        found = f"the {split.split} split of {split.corpus} has {split.n_tokens} token{'s' * (split.n_tokens != 1)}"
        if context_length == 1:
            raise DataError(f"{found}: there is nothing to predict in fewer than 2")
        raise DataError(f"{found}: context_length={context_length} needs at least {context_length + 1}")


def _header(
    corpus: Corpus, tokenizer: Tokenizer, sha256: str, split: Split, part: TextPart, documents: Documents
) -> dict[str, Any]:
    """Returns the header that a store of these tokens must have."""
    # The same text can be divided in other ways: a file may hold what else are many.
    sizes = " ".join(str(span.n_bytes) for span in part.documents)
    isolated = {"documents_sha256": hashlib.sha256(sizes.encode()).hexdigest()} if documents == "isolated" else {}
    return {
        "format": _FORMAT,
        "corpus_sha256": corpus.sha256,
        "tokenizer_sha256": sha256,
        "split": split,
        # The hash covers the whole corpus; the length tells apart different splits of it (a directory may set its own),
        # and the hash of the text a validation split from which near-duplicates were removed.
        "n_bytes": part.n_bytes,
        "n_chars": part.n_chars,
        **({"text_sha256": corpus.val_sha256} if split == "val" and corpus.val_sha256 else {}),
        "dtype": "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32",
        **isolated,
    }


def _path(header: dict[str, Any]) -> Path:
    hashes = f"{header['corpus_sha256'][:16]}-{header['tokenizer_sha256'][:16]}"
    further = "".join(f"-{header[name][:16]}" for name in ("text_sha256", "documents_sha256") if name in header)
    return cache_dir("tokens") / f"{hashes}-{header['split']}-{header['n_bytes']}{further}.bin"


def _dtype(header: dict[str, Any]) -> np.dtype[Any]:
    return np.dtype(header["dtype"]).newbyteorder("<")


def _open(corpus: Corpus, split: Split, header: dict[str, Any]) -> TokenSplit | None:
    """Open the store of the split; returns None when it is missing, incomplete or damaged."""
    path, dtype = _path(header), _dtype(header)
    try:
        written = files.parse_json(files.read_bytes(path.with_suffix(".json"), _MAX_HEADER_BYTES))
        size = path.stat().st_size
        sha256 = file_sha256(path)
    except (OSError, ValueError):
        return None
    n_tokens = size // dtype.itemsize
    ends = _open_ends(path) if "documents_sha256" in header else None
    of_ends: dict[str, str] = {} if ends is None else {"ends_sha256": _sha256(ends)}
    if written != {**header, "n_tokens": n_tokens, "sha256": sha256, **of_ends} or size % dtype.itemsize:
        return None
    # An empty file cannot be mapped.
    tokens = np.memmap(path, dtype=dtype, mode="r") if n_tokens else np.empty(0, dtype=dtype)
    return TokenSplit(corpus.name, split, tokens, n_tokens, header["n_bytes"], header["n_chars"], ends)


def _open_ends(path: Path) -> np.ndarray | None:
    try:
        return np.fromfile(path.with_suffix(".ends"), dtype=_ENDS)
    except OSError:
        return None


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def _tokenize(
    corpus: Corpus,
    tokenizer: Tokenizer,
    split: Split,
    part: TextPart,
    header: dict[str, Any],
    progress: Progress | None,
) -> None:
    path, dtype = _path(header), _dtype(header)
    isolated = "documents_sha256" in header
    n_tokens = done_bytes = done_chars = 0
    ends: list[int] = []
    digest = hashlib.sha256()
    with cache_file(path) as write:
        for chunks in part.document_chunks() if isolated else [part.chunks()]:
            for text in whole_words(chunks):
                try:
                    ids = tokenizer.encode_array(text)
                except UnknownCharacterError as error:
                    position = done_chars + error.position
                    where = f"the {split} split of {corpus.name}"
                    raise UnknownCharacterError(error.char, position, where) from error
                content = ids.astype(dtype).tobytes()
                write(content)
                digest.update(content)
                n_tokens += ids.size
                done_chars += len(text)
                done_bytes += len(text.encode())
                if progress is not None:
                    progress(done_bytes, part.n_bytes)
            ends.append(n_tokens)
    facts: dict[str, Any] = {"n_tokens": n_tokens, "sha256": digest.hexdigest()}
    if isolated:
        places = np.array(ends, dtype=_ENDS)
        with cache_file(path.with_suffix(".ends")) as write:
            write(places.tobytes())
        facts["ends_sha256"] = _sha256(places)
    with cache_file(path.with_suffix(".json")) as write:
        write(json.dumps({**header, **facts}, indent=1).encode())


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Convert the progress of one split to the progress of the whole corpus."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)
