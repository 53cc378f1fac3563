"""Tests that the model type of an export has all settings of the model, and that others are refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import lmzoo
from lmzoo import registry
from lmzoo.errors import ConfigError
from lmzoo.hf import fitting as module
from lmzoo.hf.architecture import Together
from lmzoo.hf.architectures import ARCHITECTURES
from lmzoo.hf.fitting import differences, fitting, resolved
from tests.backbones.against_transformers import random_tokens
from tests.helpers import seeded

SIZES: dict[str, Any] = {"vocab_size": 61, "d_model": 32, "n_layers": 2, "context_length": 16}


def on_meta(family: str, **settings: Any) -> lmzoo.LanguageModel:
    return lmzoo.create_model(family, device="meta", **(SIZES | settings))


@pytest.mark.parametrize(
    ("family", "settings", "model_type"),
    [
        ("llama", {"pattern": "full"}, "llama"),
        ("llama", {"window": 5}, "mistral"),
        ("llama", {"attention_bias": "qkv", "window": 5, "pattern": "full rope"}, "qwen2"),
        ("llama", {"qk_norm": True, "head_dim": 12}, "qwen3"),
        ("llama", {"pattern": "rope nope"}, "smollm3"),
        ("llama", {"rotary_fraction": 0.5}, "phi3"),
        ("llama", {"window": 5, "pattern": "full rope", "head_dim": 12, "rope_scaling": "linear factor=2"}, "smollm3"),
        ("lfm2", {"pattern": "conv attention", "d_conv": 4}, "lfm2"),
        ("gpt_neox", {}, "gpt_neox"),
        ("gpt_neox", {"parallel_residual": False, "rotary_fraction": 1.0, "n_kv_heads": 1}, "starcoder2"),
        ("gptj", {"attention_bias": "all"}, "phi"),
        ("mixtral", {"qk_norm": "all"}, "olmoe"),
        ("mixtral", {"qk_norm": "head", "normalize": False}, "qwen3_moe"),
        ("mamba", {"select_eps": 0.03}, "falcon_mamba"),
        ("deepseek", {"pattern": "kda nope"}, "kimi_linear"),
        ("deepseek", {"sigmoid": False, "normalize": False, "balance_bias": False}, "deepseek_v2"),
        ("olmo2", {"pattern": "delta nope"}, "olmo_hybrid"),
        ("gemma3", {"qk_norm": False, "local_rope_theta": 1e6, "attention_cap": 2.0, "logit_cap": 3.0}, "gemma2"),
        ("alibi", {"bias": False, "activation": "gelu"}, "mpt"),
        ("hybrid", {"pattern": "mamba2 attention"}, "bamba"),
    ],
)
def test_fitting_takes_the_first_model_type_with_all_settings(
    family: str, settings: dict[str, Any], model_type: str
) -> None:
    fit = fitting(on_meta(family, **settings))
    assert fit is not None
    assert (fit.architecture.model_type, fit.config["model_type"]) == (model_type, model_type)


@pytest.mark.parametrize(
    ("family", "settings", "error"),
    [
        (
            "llama",
            {"gate": True},
            r"^gate=True: no model type of transformers for llama \(llama, mistral, .+; nearest: ",
        ),
        ("llama", {"rope_scaling": "ntk factor=2"}, r"^rope_scaling='ntk factor=2': no model type"),
        ("llama", {"qk_norm": True, "pattern": "rope nope"}, r"^(qk_norm=True|pattern='rope nope'): no model type"),
        (
            "gpt2",
            {"bias": False},
            r"^bias=False: no model type of transformers for gpt2 \(gpt2, opt; nearest: gpt2\) has ",
        ),
        ("mixtral", {"balance_bias": True}, r"^balance_bias=True: no model type"),
        ("gemma3", {"query_scalar": 20.5}, r"^query_scalar=20\.5: no model type"),
        ("griffin", {}, r"^embed_scale=5\.65685\d+: recurrent_gemma does not have this; the type lmzoo, lmzoo's own"),
        ("mixtral", {"qk_norm": "all", "head_dim": 12}, r"^qk_norm='all': no model type"),
        ("olmo2", {"pattern": "nope"}, r"^qk_norm='all': no model type .+; nearest: exaone4\) has this"),
        ("deepseek", {"pattern": "kda nope", "tie_embeddings": True}, r"^tie_embeddings=True: no model type"),
        ("granite", {"pattern": "mamba2"}, r"^pattern='mamba2': no model type"),
        ("diff", {"rope_scaling": "ntk factor=2"}, r"^rope_scaling='ntk factor=2': diffllama does not have this; "),
        (
            "granite",
            {"rope_scaling": "ntk factor=2"},
            r"^rope_scaling='ntk factor=2': no model type of transformers for granite .*nearest: granite.* has this; ",
        ),
    ],
)
def test_fitting_names_the_settings_that_stand_in_the_way(family: str, settings: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        fitting(on_meta(family, **settings))


def test_fitting_takes_the_model_type_that_is_given() -> None:
    model = on_meta("llama")
    for model_type in ("llama", "mistral", "phi3", "ministral"):
        fit = fitting(model, model_type)
        assert fit is not None
        assert fit.config["model_type"] == model_type
    with pytest.raises(ConfigError, match=r"^attention_bias='none': qwen2 does not have this"):
        fitting(model, "qwen2")
    with pytest.raises(
        ConfigError, match=r"^type='lama' must be one of llama, .+, lmzoo for the family llama; did you"
    ):
        fitting(model, "lama")
    assert fitting(model, "lmzoo") is None
    assert fitting(on_meta("retnet")) is None
    with pytest.raises(ConfigError, match=r"^type='llama' must be one of lmzoo for the family retnet"):
        fitting(on_meta("retnet"), "llama")


def test_fitting_leaves_out_what_acts_in_training_alone_and_says_so() -> None:
    fit = fitting(on_meta("mixtral", balance_loss=0.1))
    assert fit is not None
    assert fit.left_out == {"balance_loss": 0.1}
    fit = fitting(on_meta("gpt2", dropout=0.1))
    assert fit is not None
    assert (fit.left_out, fit.config["resid_pdrop"], fit.config["embd_pdrop"]) == ({}, 0.1, 0.1)


def test_fitting_refuses_an_architecture_without_an_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    granite = ARCHITECTURES["granite"]
    assert granite.can_be_written
    one_way = replace(granite, together=(*granite.together, Together(("odd",), lambda _: {})))
    monkeypatch.setattr(module, "ARCHITECTURES", {"granite": one_way})
    with pytest.raises(ConfigError, match=r"^granite can only be imported: granite does not have this"):
        fitting(on_meta("granite"))


def test_fitting_knows_every_preset_of_a_published_model() -> None:
    """The presets whose source is a published configuration of a family that transformers has."""
    published = {"llama.llama31-8b": "llama", "llama.mistral-7b": "mistral", "llama.smollm3-3b": "smollm3"}
    published |= {"gpt2.124m": "gpt2", "gpt_neox.pythia-70m": "gpt_neox", "gptj.phi-2": "phi", "olmo2.1b": "olmo2"}
    published |= {"deepseek.v2-lite": "deepseek_v2", "deepseek.v3": "deepseek_v3", "mixtral.8x7b": "mixtral"}
    published |= {"gemma3.gemma2-2b": "gemma2", "gemma3.1b": "gemma3_text", "mamba2.130m": "mamba2"}
    for name, model_type in published.items():
        config = registry.model_config(name, vocab_size=61)
        family = name.partition(".")[0]
        known = [each for each in ARCHITECTURES.values() if each.family == family]
        found = [each.model_type for each in known if isinstance(module._attempt(each, config), module.Fit)]
        assert model_type in found[:1], name


@pytest.mark.parametrize(
    ("family", "name", "number", "settings"),
    [
        ("llama", "head_dim", 8, {}),
        ("mixtral", "head_dim", 8, {}),
        ("qwen3_next", "head_dim", 8, {"pattern": "attention"}),
        ("gemma3", "query_scalar", 12, {"head_dim": 12}),
        ("hybrid", "ssm_head_dim", 8, {"pattern": "mamba2"}),
        ("griffin", "embed_scale", 32**0.5, {}),
    ],
)
def test_resolved_numbers_are_those_that_none_stands_for(
    family: str, name: str, number: float, settings: dict[str, Any]
) -> None:
    one, other = (
        lmzoo.create_model(family, generator=seeded(), **SIZES, **settings, **given).eval()
        for given in ({}, {name: number})
    )
    assert resolved(one.config)[name] == number
    assert differences(one.config, other.config) == []
    idx = random_tokens(61, 1, 8)
    with torch.no_grad():
        assert torch.equal(one(idx).logits, other(idx).logits)


def test_differences_are_those_between_models() -> None:
    def of(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
        return differences(*(on_meta("llama", n_layers=4, **settings).config for settings in (one, other)))

    assert of({"pattern": "rope nope"}, {"pattern": "rope nope rope nope"}) == []
    assert of({"pattern": "rope"}, {"pattern": "full*4"}) == []
    assert of({"pattern": "rope", "window": 5}, {"pattern": "full*4", "window": 5}) == ["pattern"]
    assert (
        of({"rope_scaling": "yarn factor=4 original=8"}, {"rope_scaling": "yarn original=8 factor=4.0 fast=32"}) == []
    )
    assert of({"rope_scaling": "yarn factor=4 original=8"}, {"rope_scaling": "yarn factor=4 original=9"}) == [
        "rope_scaling"
    ]
    assert of({"rope_theta": 0.1 + 0.2}, {"rope_theta": 0.3}) == []
    assert of({"rope_theta": 0.3000001, "sinks": True}, {"rope_theta": 0.3}) == ["rope_theta", "sinks"]
