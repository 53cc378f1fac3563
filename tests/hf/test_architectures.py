"""Tests that the architecture of a config.json is found, and that the error for another one names the nearest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lmzoo import registry
from lmzoo.errors import CheckpointError
from lmzoo.hf.architecture import Config
from lmzoo.hf.architectures import ARCHITECTURES, architecture_of


def test_architectures_are_families_of_lmzoo() -> None:
    families = registry.families()
    for model_type, architecture in ARCHITECTURES.items():
        assert architecture.model_type == model_type
        assert architecture.family in families


def test_architectures_are_listed_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "hugging-face.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*) \| `(\w+)` \|$", text, re.MULTILINE)
    listed = {model_type: family for types, family in rows for model_type in re.findall(r"`([\w-]+)`", types)}
    assert listed == {model_type: architecture.family for model_type, architecture in ARCHITECTURES.items()}


@pytest.mark.parametrize("architectures", [None, [], ["LlamaForCausalLM"], ["Other", "LlamaForCausalLM"]])
def test_architecture_of_finds_the_model_type(architectures: Any) -> None:
    config = Config(model_type="llama", architectures=architectures)
    assert architecture_of(config) is ARCHITECTURES["llama"]


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"model_type": "lama"}, r"^model_type='lama' is not one that lmzoo loads; did you mean 'llama'\?$"),
        ({}, r"^model_type must be given$"),
        ({"model_type": ["llama"]}, r"^model_type=\['llama'\] must be a text$"),
        (
            {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]},
            r"^architectures=\['LlamaForSequenceClassification'\] must have LlamaForCausalLM$",
        ),
        ({"model_type": "llama", "architectures": "LlamaForCausalLM"}, r"^architectures=.+ must be a list$"),
    ],
)
def test_architecture_of_names_key_value_and_rule(config: dict[str, Any], error: str) -> None:
    with pytest.raises(CheckpointError, match=error):
        architecture_of(Config(config))
