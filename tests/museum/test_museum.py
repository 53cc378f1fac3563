"""Every exhibit fails the check that its file names; the correct models of `base.py` pass all checks."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from lmzoo.conformance import check_model, check_names
from lmzoo.model import LanguageModel
from tests.museum import base

FOLDER = Path(__file__).parent / "exhibits"
EXHIBITS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", EXHIBITS)
def test_exhibit_fails_its_check(name: str) -> None:
    exhibit = importlib.import_module(f".exhibits.{name}", __package__)
    report = check_model(exhibit.MODEL, only=["construction", exhibit.CAUGHT_BY])
    assert report.failures == [exhibit.CAUGHT_BY], str(report)
    saw = report.results[-1].saw
    assert "raised" not in saw, f"fails by an unrelated exception: {saw}"


@pytest.mark.parametrize("name", EXHIBITS)
def test_exhibit_names_its_fault_and_source(name: str) -> None:
    exhibit = importlib.import_module(f".exhibits.{name}", __package__)
    assert exhibit.CAUGHT_BY in check_names()
    paragraphs = (exhibit.__doc__ or "").split("\n\n", 1)
    assert len(paragraphs) == 2, "the docstring needs a line with the fault, then a paragraph with its source"
    assert re.search(r"[\w-]+/[\w.-]+#\d+|^Ours:", paragraphs[1]), "the source must be repository#issue, or Ours:"


@pytest.mark.parametrize("model", [base.Transformer, base.Learned, base.Recurrent])
def test_base_models_pass_all_checks(model: type[LanguageModel]) -> None:
    names = [name for name in check_names() if name != "save_and_load"]  # done in tests/conformance/test_saving.py
    report = check_model(model, only=names)
    assert report.passed, str(report)


def test_exhibits_cover_every_check() -> None:
    caught = {importlib.import_module(f".exhibits.{name}", __package__).CAUGHT_BY for name in EXHIBITS}
    # `construction` needs no exhibit, and the faults that prompt_lengths finds also fail batch_independence.
    assert set(check_names()) - caught == {"construction", "prompt_lengths"}
    assert len(EXHIBITS) >= 30
