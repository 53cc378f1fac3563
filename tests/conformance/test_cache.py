"""A report is kept for the code and config that it was made with, and for nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

import lmzoo
from lmzoo.conformance import Result, cache, cached_check, subject
from lmzoo.conformance.tiny import CONTEXT, VOCAB
from lmzoo.model import LanguageModel, ModelConfig

from ..museum.base import Learned, Transformer

ONLY = ["shapes"]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMZOO_CACHE", str(tmp_path))
    return tmp_path / "checks"


def test_the_second_time_is_read(empty_cache: Path) -> None:
    first = cached_check("bigram", only=ONLY)
    (file,) = empty_cache.iterdir()
    file.write_text(file.read_text().replace('"seconds": ', '"seconds": 1'))
    told: list[Result] = []
    second = cached_check("bigram", only=ONLY, listener=told.append)
    assert second.results[0].seconds != first.results[0].seconds
    assert tuple(told) == second.results


def test_a_damaged_file_is_made_again(empty_cache: Path) -> None:
    first = cached_check("bigram", only=ONLY)
    (file,) = empty_cache.iterdir()
    for damage in ("", "{}", "[]", '{"results": 3}'):
        file.write_text(damage)
        assert cached_check("bigram", only=ONLY).failures == first.failures
        assert '"passed": true' in file.read_text()


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LMZOO_CACHE", str(tmp_path / "file"))
    assert cached_check("bigram", only=ONLY).passed


def test_the_key_follows_config_class_checks_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = subject(Transformer).config
    wider = Transformer.config_class(vocab_size=VOCAB, d_model=32)
    monkeypatch.setattr(cache, "PACKAGE", tmp_path)
    (tmp_path / "ops").mkdir()
    keys = [
        cache.key(Transformer, config),
        cache.key(Transformer, wider),
        cache.key(Learned, config),
        cache.key(Transformer, config, ["shapes"]),
    ]
    (tmp_path / "ops" / "scan.py").write_text("x = 1")
    keys.append(cache.key(Transformer, config))
    (tmp_path / "ops" / "scan.py").write_text("x = 2")
    keys.append(cache.key(Transformer, config))
    assert len(set(keys)) == len(keys)
    assert cache.key(Transformer, config) == keys[-1]


def test_what_has_no_source_or_its_own_weights_is_not_kept(empty_cache: Path) -> None:
    namespace: dict[str, type[LanguageModel]] = {"LanguageModel": LanguageModel}
    exec("class Typed(LanguageModel):\n    pass", {**namespace, "__name__": "builtins_typed"}, namespace)
    import sys
    import types

    sys.modules["builtins_typed"] = types.ModuleType("builtins_typed")
    assert cache.key(namespace["Typed"], ModelConfig(vocab_size=3)) is None
    del sys.modules["builtins_typed"]
    cached_check(lmzoo.create_model("bigram", vocab_size=VOCAB, context_length=CONTEXT), only=ONLY)
    assert not empty_cache.exists()
