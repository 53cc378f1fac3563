"""Tests the names of files: which can be written, and that readers never take a temporary one for a finished one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lmzoo.storage.names import PART_BYTES, PATH_BYTES, replaced, require_valid, unfinished


def test_require_valid_allows_the_longest_name_whose_temporary_name_fits() -> None:
    longest = PART_BYTES - len(unfinished(Path("a")).name) + 1
    require_valid(Path("x") / ("a" * longest))
    require_valid(Path("模" * 80))
    for path in (Path("a" * (longest + 1)), Path("模" * 85), Path("x/" * (PATH_BYTES // 2) + "a")):
        with pytest.raises(OSError, match="the name is too long") as caught:
            require_valid(path)
        assert caught.value.errno == errno.ENAMETOOLONG


def test_names_of_what_is_not_committed_are_hidden_and_beside_it() -> None:
    path = Path("runs/gpt2")
    assert unfinished(path) == Path("runs/.gpt2.writing")
    assert replaced(path) == Path("runs/.gpt2.replaced")
