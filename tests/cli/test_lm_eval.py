"""Tests of `lmzoo lm-eval`: the harness runs our tasks on one of our models."""

from __future__ import annotations

import json
import sys
from functools import partialmethod
from pathlib import Path

import pytest

import lmzoo as library
from lmzoo.data import train_tokenizer
from tests.cli.commands import Command


def test_lm_eval_runs_our_tasks(lmzoo: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads only our tasks: the description of each of lm_eval's own 14,000 takes most of the time."""
    from lm_eval.tasks import TaskManager  # imports much that no other test of the command line needs

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(TaskManager, "__init__", partialmethod(TaskManager.__init__, include_defaults=False))
    model = library.create_model("bigram", vocab_size=256)
    model.save(tmp_path / "model", tokenizer=train_tokenizer("byte", [""]))
    tasks = ["zoo_pydocs", "zoo_words", "zoo_copy"]
    options = ["--limit", "3", "--batch_size", "8", "--output_path", str(tmp_path / "out.json")]
    result = lmzoo("lm-eval", "--model_args", f"path={tmp_path / 'model'}", "--tasks", ",".join(tasks), *options)
    assert result.code == 0, result.err
    (file,) = tmp_path.glob("out*.json")
    results = json.loads(file.read_text())["results"]
    assert {*results} == {*tasks}
    assert results["zoo_pydocs"]["bits_per_byte,none"] == pytest.approx(8, abs=0.5)  # untrained: nearly uniform
    for wrong, message in (
        (["--tasks", "zoo_wrods", "--model_args", "path=nothing"], "lm-eval: Tasks not found: zoo_wrods"),
        (["--tasks", "zoo_words"], "the model lmzoo needs a path: --model_args path=RUN"),
        (["--tasks", "zoo_words", "--model_args", "path=x,depth=3"], "depth=3 is no argument of the model lmzoo: docs"),
        (["--tasks", "zoo_words", "--model_args", "path=x,batch_size=2"], "multiple values for keyword argument"),
        (["--model_args", "path=nothing"], "lm-eval: No tasks specified"),
    ):
        result = lmzoo("lm-eval", *wrong)
        assert (result.code, message in result.err.splitlines()[-1]) == (2, True), result.err


def test_lm_eval_without_arguments_does_not_wait_for_the_tasks_of_lm_eval(
    lmzoo: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # importing it would raise ImportError
    result = lmzoo("lm-eval")
    assert (result.code, "lm-eval: no tasks are named" in result.err) == (2, True), result.err
