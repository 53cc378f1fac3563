"""Tests the removal of near-duplicates on documents whose copies are known."""

from __future__ import annotations

import random

import pytest

from lmzoo.data.deduplicate import deduplicate

_RNG = random.Random(0)
_A, _B, _C = ("".join(_RNG.choices("abcdefgh ", k=1000)) for _ in range(3))


def test_deduplicate_removes_what_a_longer_document_mostly_contains() -> None:
    section, edited = _A[200:700], _A[300:600] + "an end of its own"
    assert list(deduplicate([section, _A, edited, _B, _B])) == sorted([_A, _B])


def test_deduplicate_measures_the_text_shared_with_others() -> None:
    own = _C[:600]
    found = deduplicate([_A + own, _B + _A[:200], _C[600:]])
    n_shared = 200 - 49
    assert found[_A + own] == pytest.approx(n_shared / (1600 - 49), abs=1e-12)
    assert found[_B + _A[:200]] == pytest.approx(n_shared / (1200 - 49), abs=1e-12)
    assert found[_C[600:]] == 0


def test_deduplicate_keeps_distinct_short_documents() -> None:
    assert deduplicate(["short", "other", "short"]) == {"other": 0.0, "short": 0.0}
    assert deduplicate([]) == {}


def test_deduplicate_does_not_depend_on_the_order() -> None:
    documents = [_A, _B, _A[:900] + "x" * 100, _C, _B[100:]]
    expected = deduplicate(documents)
    assert len(expected) == 3
    for _ in range(5):
        _RNG.shuffle(documents)
        assert list(deduplicate(documents).items()) == list(expected.items())
