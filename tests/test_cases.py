"""Tests of many cases in one test."""

from __future__ import annotations

import pytest
import torch

from tests.cases import each_case

seen: list[tuple[int, int, str, float]] = []


@each_case("number, square", [(2, 4), (3, 9)])
@each_case("word", ["a", "b"])
def with_cases(number: int, square: int, word: str, tmp_path: str) -> None:
    assert number * number == square != 9 or not tmp_path
    seen.append((number, square, word, torch.rand(()).item()))


@each_case("word", ["a", "b"])
@each_case("number", range(2))
def test_each_case_takes_fixtures_and_parameters(number: int, word: str, request: pytest.FixtureRequest) -> None:
    assert request.node.name == "test_each_case_takes_fixtures_and_parameters"
    assert (number, word) in [(0, "a"), (1, "a"), (0, "b"), (1, "b")]


def test_each_case_calls_with_each_and_the_same_random_state() -> None:
    seen.clear()
    with_cases(tmp_path="")
    assert [case[:3] for case in seen] == [(2, 4, "a"), (2, 4, "b"), (3, 9, "a"), (3, 9, "b")]
    assert len({case[3] for case in seen}) == 1


def test_each_case_names_the_case_that_fails() -> None:
    with pytest.raises(AssertionError) as failed:
        with_cases(tmp_path="x")
    assert failed.value.__notes__ == ["in the case {'word': 'a'}", "in the case {'number': 3, 'square': 9}"]
