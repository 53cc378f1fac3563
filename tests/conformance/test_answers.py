"""The side of the new process, run in this one."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
import torch

from lmzoo import registry
from lmzoo.conformance import Result, Subject, subject, suite
from lmzoo.conformance.answers import answer_all, find_class, main
from lmzoo.conformance.fresh import reference
from lmzoo.conformance.saving import require_loaded, save_request
from tests.museum.base import Transformer


def test_answer_all_continues_after_an_error(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for path in (good, bad):
        path.mkdir()
        logits_BTV = save_request(subject(Transformer), path)
    (bad / "request.json").write_text("{}")
    answer_all([bad, good])
    assert (bad / "error.txt").read_text() == "KeyError: 'threads'"
    require_loaded(good, logits_BTV)


PLUGIN = """
import lmzoo
class Outer:
    class Model(lmzoo.LanguageModel): ...
"""


def test_find_class_loads_the_file_of_a_plugin(tmp_path: Path) -> None:
    file = tmp_path / "outer_model.py"
    file.write_text(PLUGIN)
    registry.load_plugin(str(file))
    (name,) = [name for name in sys.modules if name.startswith("lmzoo_plugin_") and name.endswith("_outer_model_py")]
    cls = sys.modules[name].Outer.Model
    asked = reference(cls)
    del sys.modules[name]  # as in another process
    try:
        found = find_class(asked)
        assert found.__qualname__ == "Outer.Model"
        assert found is not cls
        assert sys.modules[name].Outer.Model is found
    finally:
        sys.modules.pop(name, None)


def test_find_class_makes_a_derived_class_anew() -> None:
    cls = registry.model_class("llama-transplant")
    assert find_class(reference(cls)) is cls
    assert reference(registry.model_class("llama"))["derived"] is None


def test_main_answers_each_kind_of_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: the checks that a fresh process runs are those of the subject that it was sent."""
    logits_BTV = save_request(subject(Transformer), tmp_path)
    about = {"settings": {"d_model": 24}, "name": "a name", "thorough": True, "seed": 3}
    requests = [{"load": str(tmp_path)}, {"subject": {**reference(Transformer), **about}}, {"check": "shapes"}]
    checked: list[Subject] = []

    def run_check(check: suite.Check, asked: Subject) -> Result:
        checked.append(asked)
        return Result(check.name, check.group, True, "seen", 0.5)

    threads: list[int] = []
    ended: list[int] = []
    monkeypatch.setattr(suite, "run_check", run_check)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(os, "_exit", ended.append)
    answers = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(request) + "\n" for request in requests)))
    monkeypatch.setattr(sys, "stdout", answers)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    main()
    assert [json.loads(line) for line in answers.getvalue().splitlines()] == [
        {},
        {},
        {"name": "shapes", "group": "contract", "passed": True, "saw": "seen", "seconds": 0.5, "follows": ""},
    ]
    require_loaded(tmp_path, logits_BTV)
    (asked,) = checked
    assert (asked.cls, asked.name, asked.thorough, asked.seed) == (Transformer, "a name", True, 3)
    assert asked.settings == {"d_model": 24}
    assert threads == [torch.get_num_threads(), 1]
    assert ended == [0]
