"""Tests that shingles are equal exactly where the text is equal."""

from __future__ import annotations

import random

import numpy as np

from lmzoo.data.shingles import SHINGLE, shingles


def test_shingles_are_equal_where_the_text_is_equal() -> None:
    rng = random.Random(0)
    copied = "".join(rng.choices("ab\n中𠮷", k=80))
    text = "".join(rng.choices("ab\n中𠮷", k=300)) + copied + "".join(rng.choices("ab", k=200)) + copied + "a" * 120
    hashes = shingles(text)
    plain = [text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)]
    _, numbers = np.unique(hashes, return_inverse=True)
    _, expected = np.unique(plain, return_inverse=True)
    assert len(hashes) == len(plain)
    pairs = set(zip(numbers.tolist(), expected.tolist(), strict=True))
    assert len(pairs) == numbers.max() + 1 == expected.max() + 1 < len(plain)


def test_shingles_of_a_chunk_are_those_of_the_text() -> None:
    text = "the sea was calm and the ship was small; she sells sea shells on the sea shore, and more"
    assert shingles(text[20:80]).tolist() == shingles(text)[20:31].tolist()


def test_shingles_of_a_short_text_are_none() -> None:
    for n_chars in (0, 1, SHINGLE - 1):
        assert shingles("a" * n_chars).size == 0
    assert shingles("a" * SHINGLE).size == 1
