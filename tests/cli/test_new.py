"""Tests of `lmzoo new`: the file that it writes passes every check, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmzoo import registry
from lmzoo.conformance import CHECKS, check_model
from tests.cli.commands import Command


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; what is registered in it is forgotten."""
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_new_writes_a_model_that_passes_its_checks(lmzoo: Command, place: Path) -> None:
    written = lmzoo("new", "my-mixer")
    assert (written.code, written.out) == (0, "wrote my_mixer.py   try: lmzoo check my_mixer.py\n")
    checked = lmzoo("check", "my_mixer.py", "--only", "construction")
    assert checked.code == 0, checked.out
    # Without a second process, which loads the model of another file in tests/test_docs.py.
    here = [check.name for check in CHECKS if check.name != "save_and_load" and not check.needs_instance]
    report = check_model("my-mixer", only=here)
    assert report.passed, str(report)
    listed = lmzoo("list", "my-*", "--plugin", "my_mixer.py").out
    assert "my-mixer.tiny" in listed
    assert "One sentence for `lmzoo list`." in listed
    shown = lmzoo("show", "my-mixer.tiny", "--plugin", "my_mixer.py").out
    assert "More about the idea" in shown
    assert "learning_rate = 0.003" in shown


def test_new_overwrites_nothing(lmzoo: Command, place: Path) -> None:
    (place / "mine.py").write_text("my work")
    for arguments, message in (
        (["mine"], "out=mine.py exists: it is left as it is"),
        (["other", "--out", "mine.py"], "out=mine.py exists"),
        (["other", "--out", "other.txt"], "out=other.txt must be the name of a Python file, such as other.py"),
        (["gpt2"], "name='gpt2' is taken"),
        (["My Model"], "must be lower-case letters, digits"),
        (["other", "--out", "absent/other.py"], "absent/other.py: cannot be written"),
    ):
        result = lmzoo("new", *arguments)
        assert (result.code, result.err.count("\n")) == (2, 1), result.err
        assert message in result.err
    assert [(path.name, path.read_text()) for path in place.iterdir()] == [("mine.py", "my work")]
