"""Tests the search for near-duplicates across the split with planted copies and templates, against a plain one."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lmzoo.data import near_duplicates
from lmzoo.data.near_duplicates import NEARLY, NearDuplicates, find_near_duplicates
from lmzoo.data.shingles import shingles
from lmzoo.data.text import Span, file_span

Write = Callable[[str, str | bytes], Path]
Find = Callable[[list[str], list[str]], list[int]]

_WORDS = ["".join(random.Random(n).choices("abcdefghijklmnopqrstuvwxyz说", k=2 + n % 8)) for n in range(2000)]


def _text(seed: int, n_words: int) -> str:
    words = random.Random(seed).choices(_WORDS, k=n_words)
    return "\n".join(" ".join(words[i : i + 10]) for i in range(0, n_words, 10)) + "\n"


def _edited(text: str, every: int) -> str:
    """Replace one character in each `every`."""
    rng = random.Random(0)
    places = {rng.randrange(start, start + every) for start in range(0, len(text), every)}
    return "".join("#" if place in places else char for place, char in enumerate(text))


@pytest.fixture
def find(write: Write) -> Find:
    """`find_near_duplicates` on texts."""

    def _find(train: list[str], val: list[str]) -> list[int]:
        spans = [
            [file_span(write(f"{n}{k}.txt", text)) for k, text in enumerate(part)]
            for n, part in enumerate((train, val))
        ]
        return find_near_duplicates(*spans)

    return _find


@pytest.mark.parametrize(
    "copy",
    [
        lambda text: text,
        lambda text: _edited(text, 400),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "    " + text.replace("\n", "\n    "),
        lambda text: text.replace("\n", " "),
        lambda text: text[len(text) // 3 :],
        lambda text: _text(7, 20) + text,
        lambda text: text.replace(_WORDS[5], "another"),
    ],
    ids=["exact", "edited", "CRLF", "indented", "one line", "a part", "longer", "a word replaced"],
)
def test_find_near_duplicates_finds_copies_with_small_changes(find: Find, copy: Callable[[str], str]) -> None:
    train = [_text(seed, 300) for seed in range(20, 30)]
    val = [_text(1, 300), copy(train[4]), _text(2, 300)]
    assert find(train, val) == [1]


@pytest.mark.parametrize(
    "other",
    [
        lambda train: train[0][: len(train[0]) // 2] + _text(8, 150),
        lambda train: "".join(text[: len(text) // 4] for text in train[:4]),  # a quarter each of four documents
        lambda train: _edited(train[0], 60),
    ],
    ids=["half", "quarters", "an edit in each shingle"],
)
def test_find_near_duplicates_leaves_documents_with_text_of_their_own(
    find: Find, other: Callable[[list[str]], str]
) -> None:
    train = [_text(seed, 300) for seed in range(20, 30)]
    assert find(train, [_text(1, 300), other(train)]) == []


def test_find_near_duplicates_leaves_documents_with_the_same_license_or_template(find: Find) -> None:
    license = _text(3, 90)
    licensed = [license + _text(seed, seed - 40) for seed in range(100, 140)]
    assert find(licensed[:30], licensed[30:]) == []
    form = [f"<h1>{{}}</h1>\n{_text(4, 30)}{{}}\n{_text(5, 30)}{{}}" for _ in range(40)]
    filled = [page.format(n, _text(100 + n, 20), _text(200 + n, 20)) for n, page in enumerate(form)]
    assert find(filled[:30], filled[30:]) == []


def test_find_near_duplicates_compares_documents_with_common_shingles_seldom(write: Write) -> None:
    license = _text(3, 90)
    val = [file_span(write(f"{seed}.txt", license + _text(seed, 60))) for seed in range(100, 140)]
    sketches = near_duplicates._Sketches(val)
    numbers = sketches._lookup.find(np.concatenate(list(near_duplicates._shingles(file_span(write("l", license))))))
    assert len(numbers) > 100
    assert sketches._candidates(np.unique(numbers)) == []


def test_find_near_duplicates_equals_a_plain_comparison(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MOST_HASHES", 1024)  # all of the documents below

    def plain(text: str) -> set[str]:
        text = "".join(text.split())
        return {text[i : i + 50] for i in range(len(text) - 49)}

    rng, compared = random.Random(0), 0
    for _ in range(30):
        # Few different sentences, so that any two documents share some.
        sentences = [_text(seed, 14 + 3 * seed) for seed in range(7)]
        train, val = (["".join(rng.choices(sentences, k=rng.randint(1, 6))) for _ in range(6)] for _ in range(2))
        assert all(len(plain(text)) <= near_duplicates.MOST_HASHES for text in val)
        shares = [max(len(plain(text) & plain(other)) for other in train) / len(plain(text)) for text in val]
        assert find(train, val) == [n for n, share in enumerate(shares) if share > NEARLY]
        compared += sum(0.7 < share < 0.9 for share in shares)
    assert compared > 10


def test_find_near_duplicates_samples_long_documents(find: Find) -> None:
    train = [_text(seed, 60_000) for seed in range(2)]
    half = train[0][: len(train[0]) // 2]
    assert find(train, [_edited(train[1], 500), half + _text(9, 30_000)]) == [0]


def test_shingles_of_a_document_ignore_the_borders_of_its_chunks(write: Write) -> None:
    text = _text(0, 400_000)
    hashes = np.concatenate(list(near_duplicates._shingles(file_span(write("long.txt", text)))))
    assert len(text.encode()) > 2 << 20
    assert np.array_equal(hashes, shingles("".join(text.split())))


def test_find_near_duplicates_does_not_find_short_documents(find: Find) -> None:
    assert find(["a" * 49, "b" * 50], ["a" * 49, "a\n" * 49, "b" * 50]) == [2]


def test_find_near_duplicates_does_not_compare_the_parts_of_a_cut_document(write: Write) -> None:
    text = _text(0, 100)
    path, other = write("a.txt", 10 * text), file_span(write("b.txt", text))
    n_bytes, cut = len(text.encode()), 9 * len(text.encode())
    train, val = Span(path, 0, cut), Span(path, cut, cut + n_bytes)
    assert find_near_duplicates([train], [val]) == []
    assert find_near_duplicates([train], [val, other]) == [1]
    assert find_near_duplicates([other, train], [val]) == [0]


def test_find_near_duplicates_needs_memory_that_does_not_grow_with_the_text(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "MAX_HASHES", 1 << 14)
    peaks = []
    for times in (2, 8):
        train = [file_span(write(f"train{times}.txt", _text(0, 200_000) * times))]
        val = [file_span(write(f"{n}.txt", _text(n, 4000))) for n in range(1, 1 + 16 * times)] * 8
        tracemalloc.start()
        find_near_duplicates(train, val)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_near_duplicates_say_what_was_removed() -> None:
    assert str(NearDuplicates()).startswith("No document of the validation split nearly equals")
    one = NearDuplicates(documents=1, n_bytes=1234, share=0.042, rest_sha256="a")
    assert str(one) == (
        "1 document (1,234 bytes, 4.2 %) of the validation split nearly equals a document of the training split: "
        "it was left out."
    )
    two = NearDuplicates(documents=2, n_bytes=1234, share=0.5, rest_sha256="a")
    assert "2 documents (1,234 bytes, 50 %) of the validation split nearly equal" in str(two)
    assert str(two).endswith("they were left out.")
