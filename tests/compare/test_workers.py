"""Tests how many runs are made at once, and with how many threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lmzoo.compare import compare, workers
from lmzoo.compare.workers import choose_workers, limited_threads
from lmzoo.errors import ConfigError
from tests.compare.small import write_text


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "available_cores", lambda: [0, 1, 2, 3])


def test_choose_workers_uses_all_cores_for_several_runs_of_a_model() -> None:
    assert choose_workers(None, "processes", runs=9, one_each=False) == 4
    assert choose_workers(None, "processes", runs=2, one_each=False) == 2
    assert choose_workers(None, "processes", runs=9, one_each=True) == 1, "as it always was"
    assert choose_workers(None, "ray", runs=9, one_each=True) == 4
    assert choose_workers(3, "processes", runs=1, one_each=True) == 3


@pytest.mark.parametrize("number", [0, -1, 17, 2.0, True, "2"])
def test_choose_workers_refuses_other_numbers(number: Any) -> None:
    with pytest.raises(ConfigError, match=rf"workers={number!r} must be an integer in \[1, 16\], 4 for each CPU core"):
        choose_workers(number, "processes", runs=9, one_each=False)


def test_choose_workers_names_the_engines_and_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"engine='rya' must be 'processes' or 'ray'; did you mean 'ray'"):
        choose_workers(1, "rya", runs=1, one_each=True)
    monkeypatch.setattr(workers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"engine='ray' needs the package ray: pip install 'lmzoo\[ray\]'"):
        choose_workers(1, "ray", runs=1, one_each=True)


def test_limited_threads_divides_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    used = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: used[-1])
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    for number, threads in ((1, 4), (2, 2), (3, 1), (4, 1), (9, 1)):
        with limited_threads(number) as found:
            assert (found, used[-1]) == (threads, threads)
        assert used[-1] == 4


def test_compare_refuses_workers_that_cannot_be(tmp_path: Path) -> None:
    text = write_text(tmp_path)
    for options in ({"workers": 17}, {"engine": "x"}):
        with pytest.raises(ConfigError):
            compare(["bigram"], text, tmp_path / "out", settings={"steps": 1}, **options)
    assert not (tmp_path / "out").exists()
