"""Every exhibit fails the check that its file names; the correct models and the sound oddities pass all checks."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from lmzoo.conformance import CHECKS, check_model, check_names, saving, subject
from lmzoo.conformance.fresh import FreshProcess
from lmzoo.model import LanguageModel
from tests.cases import each_case
from tests.museum import base, chunked, grouped


def names_in(folder: str) -> list[str]:
    """Returns the names of the modules in a folder of this package."""
    return sorted(path.stem for path in (Path(__file__).parent / folder).glob("*.py") if path.stem != "__init__")


EXHIBITS, SOUND = names_in("exhibits"), names_in("sound")
# `save_and_load`: below, and in tests/conformance/test_saving.py.
HERE = [check.name for check in CHECKS if check.name != "save_and_load" and not check.needs_instance]
# In the code of a model that torch's compiler captures in a way of its own. It captures plain operations as it captures
# the families, so the slow check `compiles` looks at no other sound models.
SPECIAL = r"autograd|nn\.(GRU|LSTM|RNN)|fft|complex|rand|cache|data_dependent_shapes"
PAPER = r"arXiv \d{4}\.\d{4,5}"
ISSUE_OR_OURS = r"[\w-]+/[\w.-]+#\d+|^Ours:"


def exhibit(name: str) -> ModuleType:
    return importlib.import_module(f".exhibits.{name}", __package__)


def sound(name: str) -> ModuleType:
    return importlib.import_module(f".sound.{name}", __package__)


def source(module: ModuleType) -> str:
    """Returns the second paragraph of a module's docstring."""
    paragraphs = (module.__doc__ or "").split("\n\n", 1)
    assert len(paragraphs) == 2, "the docstring needs a line that names the point, then a paragraph with its source"
    return paragraphs[1]


@pytest.mark.parametrize("name", EXHIBITS)
def test_exhibit_fails_its_check(name: str) -> None:
    module = exhibit(name)
    report = check_model(module.MODEL, only=["construction", module.CAUGHT_BY])
    assert report.failures == [module.CAUGHT_BY], str(report)
    saw = report.results[-1].saw
    assert "raised" not in saw, f"fails by an unrelated exception: {saw}"


@each_case("name", EXHIBITS)
def test_exhibit_names_its_fault_and_source(name: str) -> None:
    assert exhibit(name).CAUGHT_BY in check_names()
    assert re.search(ISSUE_OR_OURS, source(exhibit(name))), "the source must be repository#issue, or Ours:"


BASES = [base.Transformer, base.Learned, base.Recurrent, grouped.Grouped, chunked.Chunked, chunked.Doubling]


@pytest.mark.parametrize("model", BASES)
def test_base_models_pass_all_checks(model: type[LanguageModel]) -> None:
    report = check_model(model, only=HERE)
    assert report.passed, str(report)


@pytest.mark.parametrize("name", SOUND)
def test_sound_model_passes_all_checks(name: str, pytestconfig: pytest.Config) -> None:
    special = re.search(SPECIAL, Path(str(sound(name).__file__)).read_text(encoding="utf-8"))
    here = HERE if special else [check for check in HERE if check != "compiles"]
    report = check_model(sound(name).MODEL, only=pytestconfig.getoption("check", None) or here)
    assert report.passed, str(report)


@each_case("name", SOUND)
def test_sound_model_names_its_source(name: str) -> None:
    assert re.search(f"{PAPER}|{ISSUE_OR_OURS}", source(sound(name))), "the source must be an issue, a paper, or Ours:"


def test_sound_models_are_loaded_by_one_fresh_process(tmp_path: Path) -> None:
    expected = {}
    for name in SOUND:
        path = tmp_path / name
        path.mkdir()
        expected[path] = saving.save_request(subject(sound(name).MODEL), path)
    with FreshProcess() as process:
        process.load(expected)
    for path, logits_BTV in expected.items():
        saving.require_loaded(path, logits_BTV)


def test_exhibits_cover_every_check() -> None:
    caught = {exhibit(name).CAUGHT_BY for name in EXHIBITS}
    # `construction` needs no exhibit, and the faults that prompt_lengths finds also fail batch_independence.
    assert set(check_names()) - caught == {"construction", "prompt_lengths"}
    assert len(EXHIBITS) >= 100


def test_sound_models_are_many() -> None:
    assert len(SOUND) >= 30


def test_exhibits_include_the_families_that_are_left_out() -> None:
    text = (Path(__file__).parents[2] / "docs/families.md").read_text(encoding="utf-8")
    left_out = re.findall(r"\| `(\w+)` \| `(\w+)` \|$", text, re.MULTILINE)
    assert len(left_out) == 5
    assert all(check == exhibit(name).CAUGHT_BY for check, name in left_out)
