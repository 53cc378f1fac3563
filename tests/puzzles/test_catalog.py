"""Tests of the puzzles: with the fault, the loss falls and the right check fails; without it, the checks pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lmzoo import registry
from lmzoo.conformance import CHECKS, check_model, check_names
from lmzoo.errors import ConfigError
from lmzoo.model import LanguageModel
from lmzoo.puzzles import Puzzle, puzzle, puzzles
from lmzoo.puzzles.catalog import FOLDER, WIDTH
from lmzoo.puzzles.training import falling_loss
from tests.helpers import registered_names_restored

each_puzzle = pytest.mark.parametrize("one", puzzles(), ids=lambda one: one.family)
SOURCES = {one.source: one for one in puzzles()}
# Left out where no fault of a puzzle is caught by them: they take two thirds of the time of all checks, and find what
# depends on long texts, on torch's compiler or on files, in layers that are made of a few plain operations.
COSTLY = {"long_causality", "long_decoding", "long_gradients", "long_precision", "compiles", "save_and_load"}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Registers what a test loads for this test alone."""
    with registered_names_restored():
        yield


def loaded(one: Puzzle, text: str, folder: Path) -> type[LanguageModel]:
    """Returns the model class in the text of a file."""
    path = folder / f"{one.source}.py"
    path.write_text(text, encoding="utf-8")
    registry.load_plugin(str(path))
    return registry.model_class(one.family)


@each_puzzle
def test_broken_puzzle_learns_and_fails_its_check(one: Puzzle, tmp_path: Path) -> None:
    model = loaded(one, one.broken, tmp_path)
    losses = [loss for _, loss in falling_loss(one.family, steps=30, shown=10)]
    assert losses[-1] < 0.9 * losses[0], losses
    report = check_model(model, only=["construction", one.caught_by])
    assert report.failures == [one.caught_by], str(report)
    assert "raised" not in report.results[-1].saw


@pytest.mark.parametrize("one", SOURCES.values(), ids=list(SOURCES))
def test_sound_source_passes_the_checks(one: Puzzle, tmp_path: Path) -> None:
    caught = {other.caught_by for other in puzzles() if other.source == one.source}
    chosen = [check.name for check in CHECKS if not check.needs_instance and check.name not in COSTLY - caught]
    report = check_model(loaded(one, one.sound, tmp_path), only=chosen)
    assert report.passed, str(report)


@each_puzzle
def test_puzzle_has_hints_an_answer_and_a_readable_file(one: Puzzle) -> None:
    assert one.caught_by in check_names()
    assert len(one.hints) >= 2
    assert f"\n\n`{one.caught_by}` " in one.answer
    assert max(map(len, [*one.answer.splitlines(), *one.broken.splitlines()])) <= WIDTH
    assert f'"""Puzzle {one.number}: {one.title}.' in one.broken
    for text, _ in one.fault:
        assert one.sound.count(text) == 1, text


def test_puzzles_are_numbered_and_go_from_easy_to_hard() -> None:
    found = puzzles()
    assert [one.number for one in found] == [*range(1, len(found) + 1)]
    order = ["easy", "medium", "hard"]
    assert sorted(found, key=lambda one: order.index(one.difficulty)) == list(found)
    assert {one.difficulty for one in found} == {*order}
    assert len({one.title for one in found}) == len(found) >= 12
    assert {path.stem for path in (FOLDER / "sources").glob("*.py")} == {*SOURCES}


@pytest.mark.parametrize("number", [0, -1, len(puzzles()) + 1])
def test_puzzle_refuses_other_numbers(number: int) -> None:
    with pytest.raises(ConfigError, match=rf"^puzzle={number} must be a number from 1 to {len(puzzles())}$"):
        puzzle(number)
    assert puzzle(1) == puzzles()[0]
