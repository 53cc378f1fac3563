"""`cached_check` keeps a report for the code and config that it was made with, and for no other."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

import lmzoo
from lmzoo.conformance import CHECKS, Report, Result, cache, cached_check, subject
from lmzoo.conformance.sizes import TINY
from lmzoo.model import LanguageModel, ModelConfig
from tests.museum.base import Learned, MuseumConfig, Transformer
from tests.test_imports import imported

ONLY = ["shapes"]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMZOO_CACHE", str(tmp_path))
    return tmp_path / "checks"


def test_cached_check_reads_the_report_the_second_time(empty_cache: Path) -> None:
    first = cached_check("bigram", only=ONLY)
    (file,) = empty_cache.iterdir()
    file.write_text(file.read_text().replace('"seconds": ', '"seconds": 1'))
    heard: list[Result] = []
    second = cached_check("bigram", only=ONLY, listener=heard.append)
    assert second.results[0].seconds != first.results[0].seconds
    assert tuple(heard) == second.results


def test_cached_check_replaces_a_damaged_file(empty_cache: Path) -> None:
    first = cached_check("bigram", only=ONLY)
    (file,) = empty_cache.iterdir()
    for damage in ("", "{}", "[]", '{"results": 3}'):
        file.write_text(damage)
        assert cached_check("bigram", only=ONLY).failures == first.failures
        assert '"passed": true' in file.read_text()


def test_cached_check_works_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LMZOO_CACHE", str(tmp_path / "file"))
    assert cached_check("bigram", only=ONLY).passed


def test_key_depends_on_config_class_checks_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = subject(Transformer).config
    wider = Transformer.config_class(vocab_size=TINY.vocab_size, d_model=32)
    monkeypatch.setattr(cache, "PACKAGE", tmp_path)
    (tmp_path / "ops").mkdir()
    keys = [
        cache.key(Transformer, config),
        cache.key(Transformer, wider),
        cache.key(Learned, config),
        cache.key(Transformer, config, ["shapes"]),
    ]
    for text in ("x = 1", "x = 2"):
        (tmp_path / "ops" / "scan.py").write_text(text)
        keys.append(cache.key(Transformer, config))
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert cache.key(Transformer, config) == keys[-1]
    for name, value in (("torch.__version__", "0.1"), ("sys.version", "3.9.9 (the same build)")):
        monkeypatch.setattr(name, value)
        keys.append(cache.key(Transformer, config))
    monkeypatch.setattr("sys.version", "3.9.8 (the same build)")
    assert cache.key(Transformer, config) not in keys


def test_key_depends_on_every_package_that_the_checks_run() -> None:
    files = (file for package in cache.PACKAGES for file in (cache.PACKAGE / package).rglob("*.py"))
    used = {name.split(".")[1] for file in files for name in imported(file) if name.startswith("lmzoo.")}
    packages = {name for name in used if (cache.PACKAGE / name).is_dir()}
    others = {"data", "hf"}  # hold the cache directory and tokenizers, and read checkpoints of Hugging Face
    assert packages - others <= set(cache.PACKAGES)


PLUGIN = """
import lmzoo
from yesterday import mixers

@lmzoo.register_model("yesterday")
class Yesterday(lmzoo.MixerModel):
    def make_mixer(self, config, layer):
        return mixers.Mean()
"""
FILES = {
    "mixers.py": """
from torch import nn
from today import twice
from yesterday.ops import mean_so_far

class Mean(nn.Module):
    def forward(self, x_BTD, state=None):
        return mean_so_far(twice(x_BTD)), state
""",
    "ops.py": """
import torch
from yesterday import constants

def mean_so_far(x_BTD):
    count_T1 = torch.arange(constants.FIRST, x_BTD.shape[1] + 1)[:, None]
    return x_BTD.cumsum(1) / count_T1
""",
    "constants.py": "FIRST = 1",
    "__init__.py": "",
}


@pytest.mark.parametrize("installed", [False, True])
def test_key_depends_on_the_files_that_a_plugin_imports(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change to a mixer in another file of the plug-in invalidates the report of the model.

    Of installed packages only the one that a class of the model is in.
    """
    if installed:
        monkeypatch.setattr(cache, "_is_installed", lambda _module: True)
    (tmp_path / "plugin.py").write_text(PLUGIN)
    beside = tmp_path / "today.py"  # of no package, and not installed
    beside.write_text("def twice(x):\n    return 2 * x\n")
    package = tmp_path / "yesterday"
    package.mkdir()
    for name, text in FILES.items():
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    lmzoo.registry.load_plugin(str(tmp_path / "plugin.py"))
    try:
        checked = subject("yesterday")
        keys = [cache.key(checked.cls, checked.config)]
        for name, text in FILES.items():
            if name != "__init__.py":
                (package / name).write_text(text + "\n# another")
                keys.append(cache.key(checked.cls, checked.config))
        beside.write_text("def twice(x):\n    return x + x\n")
        keys.append(cache.key(checked.cls, checked.config))
    finally:
        del lmzoo.registry._classes["yesterday"]
        for name in [name for name in sys.modules if name.split(".")[0] in ("yesterday", "today")]:
            del sys.modules[name]
    assert None not in keys
    assert len(set(keys[:-1])) == 4
    assert (keys[-1] == keys[-2]) == installed


def test_key_is_none_without_a_source(empty_cache: Path) -> None:
    namespace: dict[str, type[LanguageModel]] = {"LanguageModel": LanguageModel}
    code = "class Typed(LanguageModel):\n    def features(self, idx_BT, state=None): ..."
    exec(code, {**namespace, "__name__": "builtins_typed"}, namespace)

    sys.modules["builtins_typed"] = types.ModuleType("builtins_typed")
    assert cache.key(namespace["Typed"], ModelConfig(vocab_size=3)) is None
    del sys.modules["builtins_typed"]


def test_cached_check_keeps_no_report_of_a_model_with_its_own_weights(empty_cache: Path) -> None:
    cached_check(
        lmzoo.create_model("bigram", vocab_size=TINY.vocab_size, context_length=TINY.context_length), only=ONLY
    )
    assert not empty_cache.exists()


def test_key_is_none_for_a_model_that_cannot_be_built_on_the_meta_device() -> None:
    class Reads(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            self.scale = float(self.norm.weight.sum())

    assert cache.key(Reads, subject(Transformer).config) is None


def test_ranking_problem_asks_for_the_checks_of_the_ranking_groups_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def failed(name: str, *, only: list[str]) -> Report:
        asked.extend(only)
        return Report(name, {}, (Result("causality", "causality", False, "a leak", 0.0),))

    monkeypatch.setattr(cache, "cached_check", failed)
    assert cache.ranking_problem("x") == "failed the checks causality; see lmzoo check x"
    assert asked == [check.name for check in CHECKS if check.group in ("contract", "causality", "decoding", "loss")]
