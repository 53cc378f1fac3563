"""Tests that shingles are equal exactly where the text is equal."""

from __future__ import annotations

import random

import numpy as np

from lmzoo.data.shingles import SHINGLE, Lookup, shingles


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


def test_shingles_of_a_long_text_are_those_of_its_parts() -> None:
    text = "".join(random.Random(0).choices("abc 说𠮷", k=100_000))
    hashes = shingles(text)
    assert len(hashes) == len(text) - SHINGLE + 1
    for start in (0, 32_700, 32_767, 32_768, 65_535, 65_536, len(text) - SHINGLE):
        assert shingles(text[start : start + SHINGLE]).tolist() == [hashes[start]]


def test_shingles_of_a_short_text_are_none() -> None:
    for n_chars in (0, 1, SHINGLE - 1):
        assert shingles("a" * n_chars).size == 0
    assert shingles("a" * SHINGLE).size == 1


def test_lookup_finds_the_places_of_known_hashes() -> None:
    rng = np.random.default_rng(0)
    wanted = np.unique(rng.integers(0, 1 << 64, 1000, np.uint64))
    near = wanted[::7] + np.uint64(1)  # in the same places of the table
    hashes = rng.permutation(np.concatenate([wanted, near, wanted[:10], np.array([0, (1 << 64) - 1], np.uint64)]))
    places = {int(hash): place for place, hash in enumerate(wanted)}
    assert Lookup(wanted).find(hashes).tolist() == [places[hash] for hash in hashes.tolist() if hash in places]
    assert Lookup(wanted[:0]).find(hashes).size == 0
