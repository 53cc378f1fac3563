"""Tests the errors caused by user input: all have one base, which plain Python callers can catch too."""

from __future__ import annotations

import inspect

import pytest

from lmzoo import errors, humanize

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_are_lmzoo_errors_and_value_errors(cls: type[Exception]) -> None:
    assert issubclass(cls, errors.LmzooError)
    assert issubclass(cls, ValueError)
    assert str(cls("n_heads=12 must divide d_model=770")) == "n_heads=12 must divide d_model=770"


def test_errors_are_distinct_from_each_other() -> None:
    kinds = [cls for cls in CLASSES if cls is not errors.LmzooError]
    assert not any(issubclass(one, other) for one in kinds for other in kinds if one is not other)


def test_lmzoo_error_is_one_line_without_control_characters() -> None:
    error = errors.DataError("no such file: a\x1b[2J\nb\u202e")
    assert str(error) == r"no such file: a\x1b[2J\nb\u202e"
    assert len(str(errors.ConfigError("d_model=" + "9" * 10_000))) == humanize.WORD_CHARACTERS - 1
