"""Tests of the documents: their Python runs, their commands exist, and their messages are the real ones."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import lmzoo.layers
from lmzoo import cli, registry
from lmzoo.configs import parse_overrides
from lmzoo.layers.layer import Layer
from lmzoo.runs.spec import apply_settings
from tests import stand_ins
from tests.helpers import registered_names_restored

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
DOCUMENTS = [*READMES, *sorted((ROOT / "docs").rglob("*.md"))]
COURSE = [*(ROOT / "docs" / "course").glob("*/*.md")]  # run by tests/test_course.py
GUIDE = ROOT / "docs" / "add-a-backbone.md"
PYTHON = ROOT / "docs" / "python.md"
CONTRACT = ROOT / "docs" / "contract.md"
MODELS = {*lmzoo.list_models()}
# What is broken in the guide, in its order, and the check whose words it shows.
BREAKS = {"peeks ahead": "causality", "forgets its state": "decoding", "changes the state": "state_is_a_value"}


def blocks(path: Path, language: str) -> list[str]:
    """The fenced code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(path: Path) -> Iterator[list[str]]:
    """The lines of code that call lmzoo or a script, as words."""
    text = path.read_text(encoding="utf-8")
    code = "".join(blocks(path, "sh")) + "\n".join(re.findall(r"^    (.*)$", text, re.MULTILINE))
    for line in code.splitlines():
        if re.match(r"(lmzoo|scripts/\w+)( |$)", line):
            yield shlex.split(line, comments=True)


@pytest.fixture(autouse=True)
def own_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A folder to run in; what a document registers is gone after its test."""
    monkeypatch.chdir(tmp_path)
    with registered_names_restored():
        yield


@pytest.mark.parametrize("path", sorted({*DOCUMENTS} - {*COURSE}), ids=lambda path: path.name)
def test_every_python_block_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one namespace. The guide's first block is the file that it tells to make; its second checks it."""
    if path == PYTHON:
        stand_ins.install(monkeypatch)
    torch.manual_seed(0)
    before = set(registry._classes)
    code = blocks(path, "python")
    namespace: dict[str, object] = {"__name__": f"document_{path.stem.replace('-', '_')}"}
    if path == GUIDE:
        namespace = vars(load_guide(code[0], tmp_path))
    for number, block in enumerate(code):
        if path != GUIDE or number:
            exec(compile(block, f"{path.name}, block {number + 1}", "exec"), namespace)
    for name in set(registry._classes) - before - registry._builtin_families():
        report = lmzoo.check_model(name, only=["finals", "shapes", "causality", "receptive_field", "decoding"])
        assert report.passed, f"{path.name} shows a model that is wrong: {report}"


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_every_command_exists(path: Path) -> None:
    for words in commands(path):
        line = shlex.join(words)
        if words[0].startswith("scripts/"):
            assert (ROOT / words[0]).is_file(), f"{path.name}: {line}"
            continue
        command = cli.cli.commands.get(words[1])
        assert command is not None, f"{path.name}: {line}"
        settings, rest = [], words[2:]
        if isinstance(command, click.Group):
            command = command.commands.get(rest.pop(0))
            assert command is not None, f"{path.name}: {line}"
        options = {name: option for option in command.params for name in option.opts + option.secondary_opts}
        while rest:
            word = rest.pop(0)
            if word.startswith("-") and not command.context_settings.get("ignore_unknown_options"):
                assert word in options, f"{path.name}: {line}: no option {word}"
                if isinstance(options[word], click.Option) and not options[word].is_flag:
                    value = rest.pop(0)
                    settings += [value] if word == "--set" else []
            elif words[1] in ("train", "compare", "show") and word in MODELS:
                registry.split_name(word)
        if words[1] == "train" and words[2] in MODELS:
            apply_settings(words[2], parse_overrides(settings))


def test_both_readmes_say_the_same() -> None:
    english, chinese = READMES
    for language in ("python", "sh"):
        assert without_comments(blocks(english, language)) == without_comments(blocks(chinese, language))
    for mark in (r"^#+ ", r"^\|", r"^<!-- .* -->$"):
        counts = [len(re.findall(mark, path.read_text(encoding="utf-8"), re.MULTILINE)) for path in READMES]
        assert counts[0] == counts[1], f"{mark}: {counts}"
    links = [set(re.findall(r"\]\(([^)]*)\)", path.read_text(encoding="utf-8"))) for path in READMES]
    in_english = {link.replace("docs/course/zh/", "docs/course/en/") for link in links[1]}
    assert links[0] - {chinese.name} == in_english - {english.name}


def without_comments(code: list[str]) -> list[str]:
    return [re.sub(r" *#.*", "", block) for block in code]


def load_guide(source: str, folder: Path) -> ModuleType:
    """Register the guide's model from a file, as a person would."""
    path = folder / "my_mixer.py"
    path.write_text(source, encoding="utf-8")
    registry.load_plugin(str(path))
    return sys.modules[registry.model_class("moving-average").__module__]


def test_the_guides_model_is_short() -> None:
    code = [line for line in blocks(GUIDE, "python")[0].splitlines() if line.strip()]
    assert len(code) < 40


@pytest.mark.parametrize("number", range(len(BREAKS)), ids=list(BREAKS))
def test_the_guides_broken_models_fail_with_the_words_it_shows(number: int, tmp_path: Path) -> None:
    source, diff, shown = blocks(GUIDE, "python")[0], blocks(GUIDE, "diff")[number], blocks(GUIDE, "text")[number]
    old, new = ("".join(f"{line[1:]}\n" for line in diff.splitlines() if line[0] == sign) for sign in "-+")
    assert source.count(old) == 1, "the guide's diff must fit its file"
    path = tmp_path / "my_mixer.py"
    path.write_text(source.replace(old, new), encoding="utf-8")
    check = list(BREAKS.values())[number]
    result = CliRunner().invoke(cli.cli, ["check", str(path), "--only", check])
    assert result.exit_code == 1, result.output
    assert comparable(shown) in comparable(result.output)


def comparable(text: str) -> str:
    """One line without what rounding may change: numbers with a decimal point."""
    return re.sub(r"\d+\.\d+", "#", " ".join(text.split()))


def test_the_contract_lists_every_layer_with_its_signature() -> None:
    listed = re.findall(r"^\| `(\w+\(.*?\))` \| `(\w+)` \|", CONTRACT.read_text(encoding="utf-8"), re.MULTILINE)
    found = []
    for info in pkgutil.iter_modules(lmzoo.layers.__path__):
        module = importlib.import_module(f"lmzoo.layers.{info.name}")
        for name, thing in vars(module).items():
            is_layer = inspect.isclass(thing) and issubclass(thing, nn.Module) and thing is not Layer
            if is_layer and thing.__module__ == module.__name__:
                found.append((f"{name}({', '.join(parameters(thing))})", info.name))
    assert sorted(listed) == sorted(found)


def parameters(cls: type) -> Iterator[str]:
    """The parameters as Python shows them, with "..." for a default that is a function or an object."""
    before_star = True
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and before_star:
            yield "*"
            before_star = False
        if parameter.name.startswith("_"):  # exists for an error message
            continue
        default = parameter.default
        simple = default is None or isinstance(default, (bool, int, float))
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        shown = "" if default is parameter.empty else f"={default!r}" if simple else "=..."
        yield f"{star}{parameter.name}{shown}"


def test_every_broken_model_of_the_guide_is_tested() -> None:
    assert len(blocks(GUIDE, "diff")) == len(blocks(GUIDE, "text")) == len(BREAKS)
