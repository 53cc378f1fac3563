"""Tests plug-ins: what cannot be loaded, and who is named for an exception: the author, and nobody for our own bug."""

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


@pytest.mark.parametrize(
    ("source", "text", "message"),
    [
        ("absent.py", None, "is not a file"),
        ("no_such_module_here", None, "cannot be imported: No module named"),
        ("broken.py", "1 / 0", "failed to import in line 1: ZeroDivisionError: division by zero"),
        ("leaving.py", "import sys\nsys.exit(0)", "failed to import in line 2: SystemExit: 0"),
        ("asserting.py", "assert not 'right'", "failed to import in line 1: AssertionError$"),
        ("", None, "must be a Python file"),
        ("./words.txt", None, "must be a Python file"),
        ("a.b..c", None, "must be a Python file"),
        ("a" * 300 + ".py", None, "is not a file"),
    ],
)
def test_load_names_what_is_wrong(tmp_path: Path, source: str, text: str | None, message: str) -> None:
    path = tmp_path / source
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        plugins.load_source(str(path) if source.endswith(".py") else source)


def test_load_says_how_to_import_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("")
    for name, hint in (("beside", f"; to import files beside it, set PYTHONPATH={str(tmp_path)!r}"), ("absent", "")):
        plugin = tmp_path / f"uses_{name}.py"
        plugin.write_text(f"import {name}")
        with pytest.raises(ConfigError, match=f"No module named '{name}'{re.escape(hint)}$"):
            plugins.load_source(str(plugin))


def test_load_names_a_module_that_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "raising_module.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="plugin='raising_module' failed to import: ZeroDivisionError"):
        plugins.load_source("raising_module")
