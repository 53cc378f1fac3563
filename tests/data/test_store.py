"""Tests of the token store: exact, built once, in bounded memory, and rebuilt if incomplete or damaged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmzoo.data.corpora import Corpus, TextPart, load_corpus
from lmzoo.data.near_duplicates import NearDuplicates
from lmzoo.data.store import Documents, open_store, require_length
from lmzoo.data.tokenizers import UnknownCharacterError, train_tokenizer
from lmzoo.errors import DataError

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def corpus(write: Write, chinese: str, emoji: str) -> Corpus:
    return load_corpus(str(write("story.txt", (chinese + emoji) * 20)))


@pytest.mark.parametrize("spec", ["char", "byte", "bpe:300"])
def test_open_store_has_the_tokens_of_the_text(spec: str, corpus: Corpus) -> None:
    tokenizer = train_tokenizer(spec, corpus.chunks("train"))
    store = open_store(corpus, tokenizer)
    for split, part in ((store.train, corpus.train), (store.val, corpus.val)):
        text = "".join(part.chunks())
        assert split.tokens.tolist() == tokenizer.encode(text)
        assert split.tokens.dtype == np.uint16
        assert isinstance(split.tokens, np.memmap)
        assert (split.n_tokens, split.n_bytes, split.n_chars) == (len(split.tokens), len(text.encode()), len(text))
        with pytest.raises(ValueError, match="read-only"):
            split.tokens[0] = 0


def test_open_store_uses_wider_ids_for_large_vocabularies(write: Write) -> None:
    text = "".join(map(chr, range(0x10000, 0x10000 + 70_000)))
    corpus = load_corpus(str(write("rare.txt", text)))
    tokenizer = train_tokenizer("char", corpus.chunks())
    store = open_store(corpus, tokenizer)
    assert store.val.tokens.dtype == np.uint32
    assert tokenizer.decode(store.val.tokens) == text[63_000:]


def test_open_store_never_tokenizes_twice(corpus: Corpus, write: Write) -> None:
    tokenizer = train_tokenizer("byte", [])
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    open_store(corpus, tokenizer, progress=progress)
    assert calls == sorted(calls)
    assert calls[-1] == (corpus.n_bytes, corpus.n_bytes)
    assert {total for _, total in calls} == {corpus.n_bytes}
    assert corpus.train.n_bytes in {done for done, _ in calls}
    calls.clear()
    open_store(corpus, tokenizer, progress=progress)
    assert calls == []
    # Another tokenizer, another text, or another split of the same text needs another store.
    open_store(corpus, train_tokenizer("char", corpus.chunks()), progress=progress)
    assert calls
    calls.clear()
    text = "".join(corpus.chunks())
    open_store(load_corpus(str(write("other.txt", text + "."))), tokenizer, progress=progress)
    assert calls
    calls.clear()
    write("own/train.txt", text[:100])
    write("own/val.txt", text[102:])
    own = load_corpus(str(write("own/whole.txt", text[:100] + "\n\n" + text[102:]).parent))
    same_text = load_corpus(str(own.spans[0].source).replace("train", "whole"))
    assert own.sha256 == same_text.sha256
    assert open_store(own, tokenizer).train.n_tokens != open_store(same_text, tokenizer).train.n_tokens


@pytest.mark.parametrize("documents", ["joined", "isolated"])
def test_open_store_tells_apart_validation_splits_of_one_length(
    documents: Documents, corpus: Corpus, write: Write
) -> None:
    """Of one corpus, from which other near-duplicates were removed."""
    tokenizer, calls = train_tokenizer("byte", []), list[int]()
    for text in ("left out", "left in.", "left out"):
        val = load_corpus(str(write("val.txt", text * 2)))
        rest = NearDuplicates(documents=1, n_bytes=9, share=0.5, rest_sha256=val.sha256)
        part = TextPart(val.spans, val.n_bytes, val.n_chars, val.spans)
        calls.clear()
        store = open_store(
            replace(corpus, val=part, near_duplicates=rest),
            tokenizer,
            documents=documents,
            progress=lambda done, _: calls.append(done),
        )
        assert tokenizer.decode(store.val.tokens) == text * 2
    assert not calls, "each has a store of its own"
    assert open_store(corpus, tokenizer, documents=documents).val.n_tokens == corpus.val.n_bytes


def test_open_store_cuts_no_word_between_chunks(write: Write) -> None:
    text = "wonderful words everywhere\n" * 100_000
    corpus = load_corpus(str(write("words.txt", text)))
    tokenizer = train_tokenizer("bpe:280", corpus.chunks("train"))
    tokens = open_store(corpus, tokenizer).train.tokens
    line = tokenizer.encode("\nwonderful words everywhere")
    assert np.array_equal(tokens[len(line) - 1 :][: len(line) * 85_000].reshape(-1, len(line)), [line] * 85_000)


def test_open_store_names_an_unknown_character_and_its_position(write: Write) -> None:
    write("late/train.txt", "ab")
    corpus = load_corpus(str(write("late/val.txt", "b" * 2_500_000 + "é" + "b" * 9).parent))
    with pytest.raises(UnknownCharacterError, match=r"'é' .*position 2500000 of the val split of late was never seen"):
        open_store(corpus, train_tokenizer("char", ["ab"]))


_KILLED = """
import os, signal, sys
from lmzoo.data import load_corpus, open_store, train_tokenizer
def progress(done, total):
    os.kill(os.getpid(), signal.SIGKILL)
open_store(load_corpus(sys.argv[1]), train_tokenizer("byte", []), progress=progress)
"""


def test_open_store_ignores_files_of_a_killed_tokenization(
    write: Write, process_env: dict[str, str], cache: Path
) -> None:
    path = write("long.txt", "some words\n" * 300_000)
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(path)], env=process_env)
    assert killed.returncode == -9
    assert list((cache / "tokens").glob(".*.writing"))
    corpus = load_corpus(str(path))
    calls: list[int] = []
    store = open_store(corpus, train_tokenizer("byte", []), progress=lambda done, _: calls.append(done))
    assert calls[-1] == corpus.n_bytes
    assert store.train.n_tokens == corpus.train.n_bytes
    assert bytes(store.val.tokens.astype(np.uint8)) == path.read_bytes()[corpus.train.n_bytes :]


@pytest.mark.parametrize("damage", ["cut", "longer", "one bit", "no header", "half a header", "another header"])
def test_open_store_rebuilds_a_damaged_store(damage: str, corpus: Corpus, cache: Path) -> None:
    tokenizer = train_tokenizer("byte", [])
    expected = open_store(corpus, tokenizer).train.tokens.tolist()
    (file,) = (cache / "tokens").glob("*-train-*.bin")
    header = file.with_suffix(".json")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "longer":
        file.write_bytes(file.read_bytes() + b"\0\0")
    elif damage == "one bit":
        content = bytearray(file.read_bytes())
        content[-2] ^= 1
        file.write_bytes(content)
    elif damage == "no header":
        header.unlink()
    elif damage == "half a header":
        header.write_text(header.read_text()[:40])
    else:
        header.write_text(header.read_text().replace(corpus.sha256, "0" * 64))
    calls: list[int] = []
    store = open_store(corpus, tokenizer, progress=lambda done, _: calls.append(done))
    assert calls
    assert store.train.tokens.tolist() == expected


def test_require_length_refuses_a_split_shorter_than_a_window(write: Write) -> None:
    store = open_store(load_corpus(str(write("short.txt", "x" * 100))), train_tokenizer("byte", []))
    require_length(store.val, 9)
    with pytest.raises(DataError, match=r"val split of short\.txt has 10 tokens: context_length=10 needs at least 11"):
        require_length(store.val, 10)
    one = open_store(load_corpus(str(write("one.txt", "x"))), train_tokenizer("byte", []))
    with pytest.raises(DataError, match=r"train split of one\.txt has 0 tokens: there is nothing to predict"):
        require_length(one.train, 1)
    with pytest.raises(DataError, match=r"val split of one\.txt has 1 token: there is nothing to predict"):
        require_length(one.val, 1)


def test_open_store_names_a_cache_that_cannot_be_written(
    corpus: Corpus, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMZOO_CACHE", str(write("a-file", "not a directory")))
    with pytest.raises(DataError, match=r"cannot write .*a-file.*set LMZOO_CACHE"):
        open_store(corpus, train_tokenizer("byte", []))


_MEASURED = """
import resource, sys
from lmzoo.data import load_corpus, open_store, train_tokenizer
def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
# Everything is imported and used once, so that what grows from here on is due to the size of the text alone.
open_store(load_corpus(sys.argv[1]), train_tokenizer("char", ["a b"]))
before = peak_mib()
corpus = load_corpus(sys.argv[2])
store = open_store(corpus, train_tokenizer("char", corpus.chunks("train")))
print(store.train.n_tokens + store.val.n_tokens, peak_mib() - before)
"""


def test_open_store_needs_memory_independent_of_the_text(write: Write, process_env: dict[str, str]) -> None:
    small, large = write("small.txt", "a b" * 100_000), write("large.txt", b"sixteen letters\n" * (4 << 20))
    command = [sys.executable, "-c", _MEASURED, str(small), str(large)]
    shown = subprocess.run(command, env=process_env, check=True, capture_output=True, text=True).stdout
    n_tokens, growth_mib = shown.split()
    assert int(n_tokens) == 64 << 20
    assert float(growth_mib) < 32


@pytest.mark.parametrize("spec", ["char", "byte", "bpe:300"])
def test_open_store_tokenizes_each_isolated_document_apart(spec: str, write: Write, chinese: str) -> None:
    """With the separator that follows it, so that all documents together are the text."""
    parts = [f"Document {n}: {chinese[: 7 * n % 50]}" for n in range(40)]
    for number, part in enumerate(parts):
        write(f"d/{number:02}.txt", part)
    corpus = load_corpus(str(write("d/.hidden", "").parent))
    tokenizer = train_tokenizer(spec, corpus.chunks("train"))
    store = open_store(corpus, tokenizer, documents="isolated")
    found: list[str] = []
    for split, part in ((store.train, corpus.train), (store.val, corpus.val)):
        assert split.ends is not None
        documents = np.split(split.tokens, split.ends[:-1])
        assert split.ends[-1] == split.n_tokens
        texts = [tokenizer.decode(ids.tolist()) for ids in documents]
        assert [ids.tolist() for ids in documents] == [tokenizer.encode(text) for text in texts]
        assert "".join(texts) == "".join(part.chunks())
        assert (split.n_bytes, split.n_chars) == (part.n_bytes, part.n_chars)
        found += [text.removesuffix("\n\n") for text in texts]
    assert found == parts
    joined = open_store(corpus, tokenizer)
    assert joined.val.ends is None, "another store"


def test_open_store_keeps_isolated_documents_and_repairs_their_ends(write: Write, cache: Path) -> None:
    write("d/a.txt", "one two three " * 20)
    write("d/b.txt", "four")
    corpus, tokenizer, calls = load_corpus(str(write("d/.x", "").parent)), train_tokenizer("byte", []), list[int]()

    def ends() -> list[int]:
        split = open_store(corpus, tokenizer, documents="isolated", progress=lambda done, _: calls.append(done)).train
        assert split.ends is not None
        return split.ends.tolist()

    before = ends()
    calls.clear()
    assert ends() == before
    assert not calls, "opened from the cache"
    for damage in (b"", b"x" * 8):
        (file,) = cache.glob("tokens/*-train-*.ends")
        file.write_bytes(damage)
        assert ends() == before
        assert calls
        calls.clear()
    same_text = load_corpus(str(write("one.txt", "".join(corpus.chunks()))))
    assert same_text.sha256 == corpus.sha256
    open_store(same_text, tokenizer, documents="isolated", progress=lambda done, _: calls.append(done))
    assert calls, "the same text with other documents is another store"
