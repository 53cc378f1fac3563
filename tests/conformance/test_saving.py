"""Checks of saving and loading; all families are loaded by one fresh process."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lmzoo import registry
from lmzoo.conformance import Fault, check_model, saving, subject
from lmzoo.conformance.answers import answer_all
from lmzoo.conformance.fresh import FreshProcess
from lmzoo.conformance.tiny import Sent
from lmzoo.state import State
from tests.conformance.test_suite import Plain
from tests.museum.base import Learned, MuseumConfig, Recurrent, Transformer

FAMILIES = sorted(registry.families())


def test_save_and_load_in_one_fresh_process_for_all_families(tmp_path: Path) -> None:
    """Does the same as `save_and_load`, but with one process for all families, because starting one is slow."""
    expected = {}
    for target in [*FAMILIES, Transformer, Learned, Recurrent, Plain]:
        checked = subject(target)
        path = tmp_path / checked.name
        path.mkdir()
        expected[path] = saving.save_request(checked, path)
    with FreshProcess() as process:
        process.load(expected)
    for path, logits_BTV in expected.items():
        saving.require_loaded(path, logits_BTV)


def test_save_and_load_uses_this_process_for_a_class_that_cannot_be_imported() -> None:
    class Local(Transformer):
        pass

    (result,) = check_model(Local, only=["save_and_load"]).results
    assert result.passed
    assert "in this process" in result.saw


def test_save_and_load_finds_a_model_that_depends_on_when_it_was_built() -> None:
    class Counted(Transformer):
        built = 0

        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            type(self).built += 1
            self.number = self.built

        def embed(self, idx_BT: Tensor, position: int, state: State) -> Tensor:
            return super().embed(idx_BT, position, state) * self.number

    (result,) = check_model(Counted, only=["save_and_load"]).results
    assert result.saw.startswith("the loaded model is off by")


def test_require_loaded_reports_an_error_and_other_logits(tmp_path: Path) -> None:
    checked = subject(Transformer)
    logits_BTV = saving.save_request(checked, tmp_path)
    answer_all([tmp_path])
    saving.require_loaded(tmp_path, logits_BTV)
    with pytest.raises(Fault, match="the loaded model is off by"):
        saving.require_loaded(tmp_path, logits_BTV + 1e-3)
    (tmp_path / "error.txt").write_text("KeyError: 'x'")
    with pytest.raises(Fault, match="a fresh process cannot load the saved model: KeyError: 'x'"):
        saving.require_loaded(tmp_path, logits_BTV)


def test_save_and_load_starts_a_process_if_none_was_started_before() -> None:
    assert saving.save_and_load(subject(Transformer)) == "bitwise equal logits in a fresh process"


def test_save_and_load_compares_the_answer_of_a_process_that_was_started_before() -> None:
    class Answered(FreshProcess):
        def __init__(self) -> None:
            pass

        def end_loading(self) -> None:
            (Path(folder.name) / "error.txt").write_text("KeyError: 'x'")

    checked, folder = subject(Transformer), tempfile.TemporaryDirectory()
    checked.fresh_process, checked.sent = Answered(), Sent(folder, torch.zeros(1))
    with folder, pytest.raises(Fault, match="a fresh process cannot load the saved model: KeyError: 'x'"):
        saving.save_and_load(checked)
