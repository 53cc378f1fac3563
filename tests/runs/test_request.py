"""Tests of requests to train: which run, which settings; tests/cli/test_runs.py tests the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmzoo.errors import ConfigError, DataError
from lmzoo.runs.request import make_request
from lmzoo.runs.run import RunSpec, train_run
from lmzoo.storage import checkpoints


def test_make_request_reads_the_settings_of_a_run(tmp_path: Path, small_spec: Callable[..., RunSpec]) -> None:
    spec, run = small_spec(steps=4, dropout=0.1), tmp_path / "run"
    train_run(spec, run)
    found = make_request(str(run), None, None, {}, resume=True)
    assert (found.out, found.resume, found.prolong, found.note) == (run, True, False, None)
    assert found.spec.model_config(9) == spec.model_config(9)
    assert (found.spec.train, found.spec.data, found.spec.tokenizer) == (spec.train.resolved(), spec.data, "char")
    longer = make_request(str(run), None, None, {"train.steps": 8}, resume=True)
    assert (longer.prolong, longer.spec.train.steps) == (True, 8)


def test_make_request_of_a_new_run(tmp_path: Path) -> None:
    found = make_request("gpt2.tiny", None, None, {"steps": 3})
    assert (found.spec.model, found.spec.data, found.out) == ("gpt2.tiny", "pydocs", Path("runs/gpt2.tiny"))
    assert (found.prolong, found.note) == (False, None)
    again = make_request("gpt2.tiny", None, tmp_path / "x", {}, resume=True)
    assert again.note == f"{tmp_path / 'x'} holds no run yet: a new one begins"


def test_make_request_refuses_a_run_with_a_pattern_as_its_text(
    tmp_path: Path, small_spec: Callable[..., RunSpec]
) -> None:
    """A run of somebody else must not make this machine read files by a pattern."""
    run, spec = tmp_path / "run", small_spec(steps=2)
    train_run(spec, run)
    config = run / "config.toml"
    config.write_text(config.read_text().replace(spec.data, "/**"))
    wanted: dict[str, Any] = {"resume": True}
    with pytest.raises(DataError, match=r"was trained on data='/\*\*', a pattern: give the text with"):
        make_request(str(run), None, None, {}, **wanted)
    assert make_request(str(run), spec.data, None, {}, **wanted).spec.data == spec.data


def test_make_request_of_a_run_that_starts_from_a_trained_model(
    tmp_path: Path, small_spec: Callable[..., RunSpec]
) -> None:
    run = tmp_path / "run"
    train_run(small_spec(steps=4), run)
    found = make_request(None, None, None, {"steps": 3}, start=run)
    assert (found.out, found.spec.data, found.spec.model) == (Path("runs/run-tuned"), "pydocs", "gpt2")
    assert found.spec.start is not None
    assert found.spec.start.path == str(run)
    both = make_request(str(run), "text.txt", tmp_path / "out", {}, start=run, teacher=run)
    assert (both.out, both.spec.data, both.spec.teacher is None) == (tmp_path / "out", "text.txt", False)


def test_make_request_refuses_a_teacher_or_nothing_without_a_model_to_start_from(
    tmp_path: Path, small_spec: Callable[..., RunSpec]
) -> None:
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match="teacher=runs/x needs a trained model to start from: --from"):
        make_request("gpt2", None, None, {}, teacher="runs/x")
    with pytest.raises(ConfigError, match="name must be given"):
        make_request(None, None, None, {})
    train_run(small_spec(steps=2), run)
    with pytest.raises(ConfigError, match=r"is a run: --resume continues it, --from .*run trains its model further"):
        make_request(str(run), None, None, {})
    saved = checkpoints.path_of(run, 2)
    with pytest.raises(ConfigError, match=r"is a saved model: --from .* trains it further"):
        make_request(str(saved), None, None, {})


def test_make_request_does_not_take_what_is_there_for_an_unknown_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("notes", "gpt2.tiny"):
        Path(name).mkdir()
    with pytest.raises(ConfigError, match=r"^notes is not a run: there is nothing to resume$"):
        make_request("notes", None, None, {}, resume=True)
    assert make_request("gpt2.tiny", None, None, {}, resume=True).out == Path("runs/gpt2.tiny")
