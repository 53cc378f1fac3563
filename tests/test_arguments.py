"""Tests the checks of arguments: each names the argument, its value and the rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmzoo import arguments
from lmzoo.errors import InputError


@pytest.mark.parametrize("value", [0, 3, np.int64(3), (1 << 40) - 1])
def test_count_returns_an_integer(value: Any) -> None:
    found = arguments.count("n", value)
    assert found == value
    assert type(found) is int


@pytest.mark.parametrize("value", [-1, True, 1.0, "3", None, 1 << 40, torch.tensor(1.5)])
def test_count_refuses_other_values(value: Any) -> None:
    with pytest.raises(InputError, match=r"^n=.* must be an integer, 0 or above"):
        arguments.count("n", value)
    with pytest.raises(InputError, match=r"^n=0 must be a positive integer$"):
        arguments.count("n", 0, least=1)


def test_ids_returns_a_tuple() -> None:
    assert arguments.ids("stop", [0, np.int32(2)], 3) == (0, 2)
    assert arguments.ids("stop", torch.tensor([1]), 3) == (1,)
    assert arguments.ids("stop", range(0), 3) == ()


@pytest.mark.parametrize("value", ["01", 3, None, torch.tensor(1), [3], [-1], [1.5], ["a"], [True], [[1]], [10**400]])
def test_ids_refuses_other_values(value: Any) -> None:
    with pytest.raises(InputError, match=r"^stop"):
        arguments.ids("stop", value, 3)


def test_generator_takes_a_generator_or_none() -> None:
    generator = torch.Generator()
    assert arguments.generator(generator) is generator
    assert arguments.generator(None) is None
    with pytest.raises(InputError, match=r"generator=3 must be a torch.Generator"):
        arguments.generator(3)


def test_no_positional_names_the_likely_setting() -> None:
    arguments.no_positional("generate", (), "temperature")
    with pytest.raises(InputError, match=r"generate takes its settings by name: write temperature=0.8"):
        arguments.no_positional("generate", (0.8,), "temperature")


def test_path_takes_texts_and_paths() -> None:
    assert arguments.path("out", "a/b") == arguments.path("out", Path("a/b")) == Path("a/b")
    assert arguments.path("out", "\udcff") == Path("\udcff"), "a name of bytes that are not UTF-8"


@pytest.mark.parametrize("value", [5, None, b"a", ["a"], "a\0b", "\ud800"])
def test_path_refuses_what_no_file_can_be_named(value: Any) -> None:
    with pytest.raises(InputError, match=r"^out=.* (must be a path|cannot be the name of a file)$"):
        arguments.path("out", value)
