"""Tests the families with transplanted mixers: they are built, checked and loaded by their config alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import lmzoo
from lmzoo import configs, registry
from lmzoo.errors import ConfigError
from lmzoo.transplant.model import mixer_config, transplanted
from tests.transplant.models import SIZES, tokens, trained

HALF: dict[str, Any] = {**SIZES, "mixers": "kept gated_deltanet"}


def kinds(model: lmzoo.LanguageModel) -> list[str]:
    return [type(block[0].inner).__name__ for block in model.blocks]


def test_transplanted_is_found_by_its_name_and_hidden_from_the_list() -> None:
    model = lmzoo.create_model("llama-transplant.tiny", vocab_size=13, mixers="kept gla")
    assert type(model) is registry.model_class("llama-transplant") is transplanted(registry.model_class("llama"))
    assert registry.is_registered(type(model))
    assert kinds(model)[:2] == ["Attention", "GLA"]
    assert model.config.d_model == registry.families()["llama"].presets["tiny"].model["d_model"]
    assert not lmzoo.list_models("*transplant*")
    assert registry.recipe("llama-transplant.tiny") == registry.recipe("llama.tiny")


def test_transplanted_keeps_everything_that_its_mixers_do_not_name() -> None:
    model = lmzoo.create_model("llama-transplant", **SIZES, window=5)
    plain = lmzoo.create_model("llama", **SIZES, window=5)
    model.load_state_dict(plain.state_dict())
    assert torch.equal(model.eval()(tokens()).logits, plain.eval()(tokens()).logits)
    assert model.traits == plain.traits
    assert model.new_parts() == []


@pytest.mark.parametrize(
    ("family", "mixers", "traits"),
    [
        ("llama", "gla", ("constant", True)),
        ("llama", "kept gla", ("linear", True)),
        ("llama", "hyena", ("linear", False)),
        ("gpt2", "mamba", ("constant", False)),
        ("mamba", "mamba llama", ("linear", True)),
    ],
)
def test_traits_follow_from_the_layers(family: str, mixers: str, traits: tuple[str, bool]) -> None:
    found = lmzoo.create_model(f"{family}-transplant", **SIZES, mixers=mixers).traits
    assert (found.state_growth, found.extrapolates) == traits


def test_mixer_config_follows_the_source_unless_it_is_set() -> None:
    config = lmzoo.create_model("llama-transplant", **HALF, n_heads=2, n_kv_heads=1, mixer_settings=()).config
    found = mixer_config(config, "gated_deltanet")
    assert (found.n_heads, found.key_dim, found.value_dim, found.d_conv) == (2, 16, 16, 4)
    assert mixer_config(config, "fox").n_kv_heads == 1
    again = configs.to_dict(config) | {"mixer_settings": ["gated_deltanet.d_conv=2", "gated_deltanet.key_dim=4"]}
    found = mixer_config(configs.build(type(config), again), "gated_deltanet")
    assert (found.key_dim, found.value_dim, found.d_conv) == (4, 16, 2)
    same = lmzoo.create_model("llama-transplant", **SIZES, mixers="llama", qk_norm=True, rope_theta=77.0).config
    assert (mixer_config(same, "llama").qk_norm, mixer_config(same, "llama").rope_theta) == (True, 77.0)


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("llama", {"mixers": "kept gated_delta"}, "mixers='kept gated_delta': model 'gated_delta' is unknown; did you"),
        ("llama", {"mixers": "gpt2"}, "mixers='gpt2': the mixer of gpt2 cannot be transplanted: its model has no"),
        ("llama", {"mixers": "lstm"}, "the mixer of lstm cannot be transplanted: its first block has no mixer in"),
        ("llama", {"mixers": "hybrid", "mixer_settings": ["hybrid.pattern=attention cross"]}, ""),
        ("llama", {"mixers": "hybrid", "mixer_settings": ["hybrid.pattern=shared"]}, "it reads what its own model"),
        ("llama", {"mixers": "zamba2", "mixer_settings": ["zamba2.pattern=shared"]}, "it reads what its own model"),
        ("llama", {"mixers": "kept*0"}, r"mixers='kept\*0': 'kept\*0' must be one of kept, or WORD\*N to repeat it"),
        ("llama", {"mixers": ""}, "mixers='' must name at least one of kept"),
        (
            "llama",
            {"mixers": "gla", "mixer_settings": ["gla.nothing=3"]},
            "the mixer of gla: nothing=3 is not a setting",
        ),
        ("llama", {"mixers": "gla", "mixer_settings": ["fox.pro=true"]}, "mixer_settings='fox.pro=true' must begin"),
        ("llama", {"mixers": "gla", "n_heads": 32}, "the mixer of gla: n_heads=32 must divide d_model / 2"),
        ("cnn", {"mixers": "gla"}, "layer 0 of cnn has no mixer in a residual branch"),
    ],
)
def test_transplant_fields_refuse_what_cannot_be_built(family: str, settings: dict[str, Any], message: str) -> None:
    sizes = {**SIZES, **({"head_dim": 2} if "n_heads" in settings else {})}
    if not message:
        lmzoo.create_model(f"{family}-transplant", **sizes, **settings)
        return
    with pytest.raises(ConfigError, match=message):
        lmzoo.create_model(f"{family}-transplant", **sizes, **settings)


def test_transplant_fields_need_layers() -> None:
    with pytest.raises(ConfigError, match="mixers='gla' needs a source with n_layers"):
        lmzoo.create_model("bigram-transplant", vocab_size=13, mixers="gla")


def test_transplanted_loads_in_a_new_process(tmp_path: Path) -> None:
    model = trained("llama-transplant", mixers="kept gla", mixer_settings=["gla.gate_rank=4"])
    model.save(tmp_path / "saved")
    again = lmzoo.load_model(tmp_path / "saved")
    assert again.config == model.config
    assert torch.equal(again(tokens()).logits, model(tokens()).logits)
    code = f"import lmzoo, torch; m = lmzoo.load_model({str(tmp_path / 'saved')!r}); print(m.family, m.num_params())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["llama-transplant", str(model.num_params())]
    content = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (content["model"], content["config"]["mixer_settings"]) == ("llama-transplant", ["gla.gate_rank=4"])


QUICK = ["construction", "causality", "decoding", "receptive_field", "declared_growth"]


@pytest.mark.parametrize(
    ("family", "settings", "checks"),
    [
        ("llama", {"mixers": "kept gated_deltanet", "n_kv_heads": 2}, QUICK),
        ("olmo2", {"mixers": "gla"}, ["settings"]),  # the settings of its own mixers have an effect in a variant
        ("gpt2", {"mixers": "mamba2 kept"}, QUICK),
    ],
)
def test_transplanted_passes_its_checks(family: str, settings: dict[str, Any], checks: list[str]) -> None:
    report = lmzoo.check_model(trained(f"{family}-transplant", **settings), only=checks)
    assert report.passed, str(report)
