"""Every exhibit is rejected by the check that its file names; the models they were made from pass all checks."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from lmzoo.conformance import check_model, check_names
from lmzoo.model import LanguageModel

from . import base

FOLDER = Path(__file__).parent / "exhibits"
EXHIBITS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", EXHIBITS)
def test_exhibit_is_rejected(name: str) -> None:
    exhibit = importlib.import_module(f".exhibits.{name}", __package__)
    report = check_model(exhibit.MODEL, only=["construction", exhibit.CAUGHT_BY])
    assert report.failures == [exhibit.CAUGHT_BY], str(report)
    saw = report.results[-1].saw
    assert "raised" not in saw, f"caught by an accident: {saw}"


@pytest.mark.parametrize("name", EXHIBITS)
def test_exhibit_says_what_it_is(name: str) -> None:
    exhibit = importlib.import_module(f".exhibits.{name}", __package__)
    assert exhibit.CAUGHT_BY in check_names()
    said = (exhibit.__doc__ or "").split("\n\n", 1)
    assert len(said) == 2, "a line that says what is wrong, then where such a bug was seen"
    assert re.search(r"[\w-]+/[\w.-]+#\d+|^Ours:", said[1]), "repository#issue, or Ours:"


@pytest.mark.parametrize("right", [base.Transformer, base.Learned, base.Recurrent])
def test_the_models_they_were_made_from_pass(right: type[LanguageModel]) -> None:
    report = check_model(right)
    assert report.passed, str(report)


def test_every_check_has_an_exhibit_that_only_it_was_made_for() -> None:
    caught = {importlib.import_module(f".exhibits.{name}", __package__).CAUGHT_BY for name in EXHIBITS}
    # A model that cannot be made is no exhibit, and rows that differ in length are rows: see batch_independence.
    assert set(check_names()) - caught == {"construction", "prompt_lengths"}
    assert len(EXHIBITS) >= 30
