"""Tests who is named for an exception in a plug-in: its author, with file and line, and nobody for a bug of lmzoo."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lmzoo import plugins, registry
from lmzoo.errors import ConfigError

SOURCE = """
from torch import nn
import lmzoo
class Base(lmzoo.LanguageModel):
    def __init__(self, config):
        super().__init__(config)
        self.table, self.head = nn.Embedding(config.vocab_size, 8), nn.Linear(8, config.vocab_size)
    def features(self, idx_BT, state=None):
        return self.table(idx_BT), None
@lmzoo.register_model("wide_head")
class WideHead(Base):
    def __init__(self, config):
        super().__init__(config)
        self.head = nn.Linear(9, config.vocab_size)
@lmzoo.register_model("bad_traits")
class BadTraits(Base):
    @property
    def traits(self):
        raise KeyError("extrapolates")
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A plug-in file with two wrong models, registered for one test."""
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    registry.load_plugin(str(path))
    yield path
    for name in re.findall(r'register_model\("(\w+)"\)', SOURCE):
        del registry._classes[name]  # and no family that the test imported: its module is not run a second time


def caught(name: str) -> BaseException:
    model = registry.create_model(name, vocab_size=5)
    with pytest.raises(Exception, match=r".") as found:
        model(torch.zeros(1, 400, dtype=torch.long))
    return found.value


def test_blame_names_the_line_in_the_authors_file(file: Path) -> None:
    line = SOURCE[: SOURCE.index("raise KeyError")].count("\n") + 1
    found = plugins.blame(caught("bad_traits"), registry.registered_classes())
    assert found == f"{file}:{line}: KeyError: 'extrapolates'"


def test_blame_names_the_class_when_lmzoo_raised(file: Path) -> None:
    line = SOURCE[: SOURCE.index('@lmzoo.register_model("wide_head")')].count("\n") + 1
    registry.registered_classes()
    model = registry.create_model("wide_head", vocab_size=5)
    with pytest.raises(RuntimeError) as found:
        model(torch.zeros(1, 4, dtype=torch.long))
    said = plugins.blame(found.value, registry.registered_classes())
    assert said is not None
    assert said.startswith(f"{file}:{line}: the model WideHead cannot be used: RuntimeError: mat1 and mat2")


def test_blame_names_nobody_for_a_bug_of_lmzoo(file: Path) -> None:
    assert file.is_file()
    model = registry.create_model("bigram", vocab_size=5)
    with pytest.raises(ZeroDivisionError) as found:
        model.apply(lambda _: 1 // 0)
    assert plugins.blame(found.value, registry.registered_classes()) is None
    assert plugins.blame(found.value, []) is None


def test_place_in_names_the_line_of_a_syntax_error(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("a = 1\nb = (\n")
    with pytest.raises(ConfigError, match="failed to import in line 2: SyntaxError"):
        registry.load_plugin(str(tmp_path / "bad.py"))
