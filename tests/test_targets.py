"""Tests the models that a user names: a registered name, or a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmzoo.errors import ConfigError, UnknownModelError
from lmzoo.targets import is_file, model_name, model_names

MODEL = """
import lmzoo
from lmzoo.backbones.bigram import Bigram
"""


def write(path: Path, *names: str) -> str:
    classes = [f"@lmzoo.register_model({name!r})\nclass Mine{i}(Bigram):\n    pass\n" for i, name in enumerate(names)]
    path.write_text(MODEL + "".join(classes))
    return str(path)


def test_model_names_are_those_that_a_file_registers(tmp_path: Path) -> None:
    two = write(tmp_path / "two.py", "target_one", "target_two")
    assert is_file(two)
    assert model_names(two) == model_names(two) == ["target_one", "target_two"]
    assert model_names("gpt2.tiny") == ["gpt2.tiny"]
    with pytest.raises(ConfigError, match="registers no model"):
        model_names(write(tmp_path / "none.py"))
    with pytest.raises(UnknownModelError, match="gtp2"):
        model_names("gtp2")


def test_model_name_refuses_a_file_with_several_models(tmp_path: Path) -> None:
    assert model_name(write(tmp_path / "one.py", "target_single")) == "target_single"
    with pytest.raises(ConfigError, match="registers target_a, target_b: name one of them, with --plugin"):
        model_name(write(tmp_path / "two.py", "target_a", "target_b"))
