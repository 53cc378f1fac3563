"""Tests of corpora: exact text, exact splits, and one-line errors for everything that cannot be read."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lmzoo.data.corpora import corpus_names, load_corpus
from lmzoo.data.near_duplicates import NearDuplicates
from lmzoo.errors import DataError

Write = Callable[[str, str | bytes], Path]


def test_load_corpus_reads_a_file_exactly(write: Write, chinese: str) -> None:
    text = "\ufeff" + chinese + "windows\r\nold mac\runix\n\n"
    corpus = load_corpus(str(write("story.txt", text)))
    assert "".join(corpus.chunks()) == text
    assert (corpus.name, corpus.n_chars, corpus.n_bytes) == ("story.txt", len(text), len(text.encode()))
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("n_chars", [1, 9, 10, 11, 1000])
def test_load_corpus_trains_on_the_first_ninety_percent_of_the_characters(write: Write, n_chars: int) -> None:
    text = ("说ab𠮷" * n_chars)[:n_chars]
    corpus = load_corpus(str(write("a.txt", text)))
    cut = int(0.9 * n_chars)
    for part, expected in ((corpus.train, text[:cut]), (corpus.val, text[cut:])):
        assert "".join(part.chunks()) == expected
        assert (part.n_chars, part.n_bytes) == (len(expected), len(expected.encode()))
    assert "".join(corpus.chunks("val")) == text[cut:]


def test_load_corpus_joins_the_text_files_of_a_directory_in_order(write: Write, tmp_path: Path) -> None:
    for name, text in {
        "d/b.txt": "B",
        "d/a/z.md": "AZ",
        "d/a.py": "A",
        "d/picture.png": "no",
        "d/.hidden/x.txt": "no",
        "d/.x.txt": "no",
        "d/empty.txt": "",
    }.items():
        write(name, text)
    corpus = load_corpus(str(tmp_path / "d"))
    assert "".join(corpus.chunks()) == "A\n\nAZ\n\nB"
    assert corpus.name == "d"
    assert corpus.sha256 == hashlib.sha256(b"A\n\nAZ\n\nB").hexdigest()


def test_load_corpus_splits_a_directory_between_its_files(write: Write, tmp_path: Path) -> None:
    for number in range(20):
        write(f"d/{number:02}.txt", f"file {number:02} 说" * (1 + number % 3))
    corpus = load_corpus(str(tmp_path / "d"))
    assert (corpus.train.n_documents, corpus.val.n_documents) == (18, 2)
    train, val = ("".join(corpus.chunks(split)) for split in ("train", "val"))
    assert val == "file 18 说\n\n" + "file 19 说" * 2
    assert f"{train}\n\n{val}" == "".join(corpus.chunks())
    for part, text in ((corpus.train, train), (corpus.val, val)):
        assert (part.n_chars, part.n_bytes) == (len(text), len(text.encode()))


def test_load_corpus_cuts_a_file_if_no_file_ends_near_ninety_percent(write: Write, tmp_path: Path) -> None:
    write("d/a.txt", "a" * 70)
    write("d/b.txt", "b" * 30)
    corpus = load_corpus(str(tmp_path / "d"))
    assert "".join(corpus.chunks("val")) == "b" * 11  # of 102 characters
    assert (corpus.train.n_documents, corpus.val.n_documents) == (2, 1)


@pytest.mark.parametrize("val_name", ["val.txt", "validation.txt"])
def test_load_corpus_takes_the_splits_of_a_directory(write: Write, tmp_path: Path, val_name: str, chinese: str) -> None:
    write("d/train.txt", chinese)
    write(f"d/{val_name}", "val text")
    write("d/other.txt", "left aside")
    corpus = load_corpus(str(tmp_path / "d"))
    assert "".join(corpus.chunks("train")) == chinese
    assert "".join(corpus.chunks("val")) == "val text"
    assert corpus.val.n_chars == 8
    assert "".join(corpus.chunks()) == f"{chinese}\n\nval text"


def test_load_corpus_joins_all_matches_of_a_pattern_in_order(write: Write, tmp_path: Path) -> None:
    for name in ("d/2.log", "d/1.log", "d/deep/3.log", "d/4.txt"):
        write(name, name[-5])
    assert "".join(load_corpus(str(tmp_path / "d" / "*.log")).chunks()) == "1\n\n2"
    assert "".join(load_corpus(str(tmp_path / "d" / "**" / "*.log")).chunks()) == "1\n\n2\n\n3"


def _sentences(seed: int, n_words: int = 60) -> str:
    return " ".join(f"word{n}" for n in random.Random(seed).choices(range(1000), k=n_words))


def _write_files(write: Write, texts: list[str]) -> str:
    paths = [write(f"d/{number:02}.txt", text) for number, text in enumerate(texts)]
    return str(paths[0].parent)


def test_load_corpus_leaves_near_duplicates_out_of_the_validation_split(write: Write) -> None:
    texts = [_sentences(seed) for seed in range(20)] + [_sentences(20, 20)]
    texts[19] = texts[3].replace(" ", "  ") + " é"
    folder = _write_files(write, texts)
    whole, corpus = load_corpus(folder, keep_near_duplicates=True), load_corpus(folder)
    assert (whole.near_duplicates, whole.val_sha256) == (None, "")
    assert "".join(whole.chunks("val")) == "\n\n".join(texts[18:])
    rest = "\n\n".join([texts[18], texts[20]])
    assert "".join(corpus.chunks("val")) == rest
    assert [len("".join(document)) for document in corpus.val.document_chunks()] == [len(texts[18]) + 2, len(texts[20])]
    assert (corpus.val.n_bytes, corpus.val.n_chars) == (len(rest.encode()), len(rest))
    assert corpus.val_sha256 == hashlib.sha256(rest.encode()).hexdigest()
    size = len(texts[19].encode())
    share = size / (len(texts[18]) + size + len(texts[20]))
    found = corpus.near_duplicates
    assert found == NearDuplicates(documents=1, n_bytes=size, share=share, rest_sha256=corpus.val_sha256)
    for same in ("name", "sha256", "n_bytes", "n_chars", "spans", "train"):
        assert getattr(corpus, same) == getattr(whole, same)
    assert "".join(corpus.chunks()) == "\n\n".join(texts)
    assert load_corpus(folder) == corpus
    assert load_corpus(f"{folder}/*.txt").val == corpus.val


def test_load_corpus_of_different_files_removes_nothing(write: Write) -> None:
    folder = _write_files(write, [_sentences(seed) for seed in range(20)])
    whole, corpus = load_corpus(folder, keep_near_duplicates=True), load_corpus(folder)
    assert corpus == replace(whole, near_duplicates=NearDuplicates())


def test_load_corpus_refuses_a_validation_split_of_near_duplicates(write: Write) -> None:
    folder = _write_files(write, [_sentences(seed) for seed in range(18)] + [_sentences(2), _sentences(3)])
    _fails(folder, "d: all documents of the validation split (2) nearly equal documents of the training split")
    assert load_corpus(folder, keep_near_duplicates=True).val.n_documents == 2


def test_load_corpus_keeps_copies_in_one_document_and_in_own_splits(write: Write) -> None:
    text = _sentences(0)
    corpus = load_corpus(str(write("a.txt", text * 20)))
    assert (corpus.near_duplicates, corpus.val.n_documents) == (None, 1)
    write("own/train.txt", text * 2)
    corpus = load_corpus(str(write("own/val.txt", text).parent))
    assert (corpus.near_duplicates, "".join(corpus.chunks("val"))) == (None, text)


def _fails(spec: str | Path, *parts: str) -> None:
    """Check that loading raises a one-line error that contains all parts."""
    with pytest.raises(DataError) as caught:
        load_corpus(str(spec))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_load_corpus_suggests_the_nearest_name() -> None:
    _fails("pydoc", "unknown corpus 'pydoc'", "did you mean 'pydocs'?", *corpus_names())
    _fails("", "unknown corpus ''")


def test_load_corpus_refuses_missing_and_empty_files(write: Write, tmp_path: Path) -> None:
    _fails(tmp_path / "none.txt", "no such file", "none.txt")
    _fails("none.txt", "no such file: none.txt")
    _fails(write("empty.txt", ""), "empty.txt", "empty")
    (tmp_path / "d").mkdir()
    _fails(tmp_path / "d", "no text in this directory")
    write("d/a.png", "text")
    write("d/a.txt", "")
    _fails(tmp_path / "d", "no text in this directory")
    _fails(tmp_path / "d" / "*.md", "no file matches the pattern", "*.md")
    write("own/train.txt", "text")
    write("own/val.txt", "")
    _fails(tmp_path / "own", "val.txt: the file is empty")


@pytest.mark.parametrize("before", [0, 5, (1 << 20) - 1, 1 << 20, 3_000_000])
def test_load_corpus_names_the_byte_offset_of_binary_data(write: Write, before: int) -> None:
    _fails(write("nul.txt", b"a" * before + b"\0b"), "nul.txt", "NUL", f"byte offset {before}")
    _fails(write("latin.txt", b"a" * before + b"\xe9t\xe9"), "latin.txt", "not UTF-8", f"byte offset {before}")
    _fails(write("cut.txt", b"a" * before + "说".encode()[:2]), "cut.txt", "not UTF-8", f"byte offset {before}")


def test_load_corpus_names_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    # Root ignores permissions and often runs tests, but nobody can read a link to itself.
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "loop.txt").symlink_to(tmp_path / "d" / "loop.txt")
    _fails(tmp_path / "d", "cannot read", "loop.txt")
    _fails("/dev/null", "/dev/null", "not a regular file")


@pytest.mark.parametrize("name", ["pipe.txt", "zero.txt"])
def test_load_corpus_reads_regular_files_only(write: Write, tmp_path: Path, name: str) -> None:
    write("d/a.txt", "text")
    path = tmp_path / "d" / name
    os.mkfifo(path) if name == "pipe.txt" else path.symlink_to("/dev/zero")
    _fails(tmp_path / "d", "cannot read", "it is not a regular file")
    _fails(path, "cannot read", "not a regular file")


@pytest.mark.parametrize("spec", ["a\udcff.txt", "a\0b", "a" * 5000, "dir/" * 2000, 3, None])
def test_load_corpus_refuses_names_that_are_no_names(spec: str) -> None:
    with pytest.raises(DataError):
        load_corpus(spec)
