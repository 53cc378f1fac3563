"""Tests the descriptions of settings: every one has a meaning, and docs/settings.md lists those of the training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmzoo import registry
from lmzoo.model import ModelConfig
from lmzoo.settings import Setting, describe, markdown, shown, values
from lmzoo.train.config import TrainConfig
from tests.cases import each_case

CONFIGS = [TrainConfig, *(registry.model_class(family).config_class for family in registry.families())]


@dataclass(frozen=True, kw_only=True)
class Example(ModelConfig):
    """An example."""

    kind: Literal["a", "b"] = "a"  # one of two; None: no such thing
    rate: float | None = None
    flag: bool = True  # yes or no


def test_describe_reads_names_types_defaults_and_comments() -> None:
    *own, kind, rate, flag = describe(Example)
    assert [setting.name for setting in own] == ["vocab_size", "context_length"]
    assert own[0].default == ""
    assert kind == Setting("kind", "a | b", "a", "one of two; none: no such thing")
    assert rate == Setting("rate", "float | none", "none", "")
    assert flag == Setting("flag", "bool", "true", "yes or no")


@each_case("cls", CONFIGS)
def test_describe_finds_a_meaning_for_every_setting(cls: type) -> None:
    assert [setting.name for setting in describe(cls) if not setting.meaning] == []


def test_values_are_written_as_set_takes_them() -> None:
    assert values(Example(vocab_size=3))["flag"] == shown(True) == "true"
    assert shown(None) == "none"


def test_markdown_is_what_the_documentation_holds() -> None:
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text(encoding="utf-8")
    assert markdown(describe(TrainConfig)) in page
