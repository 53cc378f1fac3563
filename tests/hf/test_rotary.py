"""Tests of the keys of rotary positions: both spellings, rules for longer texts, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lmzoo.errors import CheckpointError
from lmzoo.hf.architecture import Config
from lmzoo.hf.architectures import ARCHITECTURES
from lmzoo.hf.keys import WITHOUT_EFFECT
from lmzoo.hf.rotary import parameters_of, rope, scaling, scaling_keys, with_parameters
from lmzoo.layers.rope_scaling import parse_rope_scaling
from tests.hf.references import case_keys


def test_rope_reads_both_spellings() -> None:
    old = Config(rope_theta=5.0, rope_scaling={"type": "linear", "factor": 2.0})
    new = Config(rope_parameters={"rope_type": "linear", "rope_theta": 5.0, "factor": 2})
    expected = {"rope_theta": 5.0, "rope_scaling": "linear factor=2.0"}
    assert rope().settings(old) == expected
    assert rope().settings(new) == {**expected, "rope_scaling": "linear factor=2"}
    assert rope(7.0).settings(Config(rope_scaling=None)) == {"rope_theta": 7.0, "rope_scaling": "none"}
    partial = rope(fraction="rotary_fraction", share=0.25, old="rotary_pct", scaled=False)
    assert partial.settings(Config()) == {"rope_theta": 10000.0, "rotary_fraction": 0.25}
    assert partial.settings(Config(rotary_pct=1)) == {"rope_theta": 10000.0, "rotary_fraction": 1.0}
    assert partial.settings(Config(rope_parameters={"partial_rotary_factor": 0.5}))["rotary_fraction"] == 0.5


def test_with_parameters_changes_those_that_are_read() -> None:
    def doubled(found: Config) -> dict[str, Any]:
        return {**found, "factor": 2 * found.value("factor", 1)}

    old, new = {"type": "linear", "factor": 2}, {"rope_theta": 5.0}
    assert with_parameters(Config(rope_scaling=old), doubled) == {"rope_scaling": {"type": "linear", "factor": 4}}
    assert with_parameters(Config(), doubled) == {"rope_parameters": {"factor": 2}}
    both = Config(rope_scaling=old, rope_parameters=new)
    assert with_parameters(both, doubled) == {"rope_scaling": {"type": "linear", "factor": 4}, "rope_parameters": new}
    assert parameters_of(both) == old


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        (
            {"rope_type": "su", "factor": 2.0},
            "rope_type='su' must be one of default, linear, dynamic, llama3",
        ),
        ({"rope_type": "dynamic", "factor": 2.0, "alpha": 3.0}, "alpha=3.0 is not known with rope_type='dynamic'"),
        ({"rope_type": "longrope", "factor": 2.0, "short_factor": [1, "2"]}, "short_factor=.1, '2'. must be a list of"),
        ({"rope_type": "linear"}, "factor=None must be a number"),
        ({"rope_type": "linear", "factor": "2"}, "factor='2' must be a number"),
        (
            {"rope_type": "linear", "factor": 2.0, "beta_fast": 3.0},
            "beta_fast=3.0 is not known with rope_type='linear'",
        ),
        ({"rope_type": ["linear"]}, r"rope_type=\['linear'\] must be a text"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 must be 1"),
        ({"partial_rotary_factor": math.nan}, r"partial_rotary_factor=nan must be a number of at most 1e\+30"),
    ],
)
def test_rope_refuses_what_it_cannot_honor(parameters: dict[str, Any], error: str) -> None:
    with pytest.raises(CheckpointError, match=f"^{error}"):
        rope().settings(Config(rope_parameters=parameters))
    if "partial_rotary_factor" not in parameters:
        with pytest.raises(CheckpointError):
            rope(scaled=False).settings(Config(rope_parameters=parameters))


def test_scaling_takes_the_factor_from_the_lengths() -> None:
    """Follows transformers: without a factor, it is the context over the length of the training."""
    config, lengths = Config(max_position_embeddings=12), {"original_max_position_embeddings": 8}
    lists = {"short_factor": [1, 2.5], "long_factor": [3.0, 4]}
    found = scaling(config, Config(rope_type="longrope", **lengths, **lists))
    assert found == "longrope original=8 factor=1.5 short=1,2.5 long=3.0,4"
    assert "factor=1.5 " in scaling(config, Config(rope_type="yarn", **lengths))
    assert scaling(config, Config(rope_type="dynamic", factor=2.0)) == "dynamic original=12 factor=2.0"


def test_scaling_takes_lengths_from_the_config() -> None:
    """Follows transformers: a key of the config comes before the key of the parameters; the default is the context."""
    parameters = Config(rope_type="yarn", factor=2.0, attention_factor=1.0)
    for config, original in (
        ({"max_position_embeddings": 9}, 9),
        ({"max_position_embeddings": 9, "original_max_position_embeddings": 5}, 5),
    ):
        assert f"original={original} " in scaling(Config(config), parameters)


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "linear factor=3.0",
        "llama3 factor=8.0 low=1.0 high=3.0 original=12",
        "yarn factor=4.0 fast=20.0 slow=0.5 original=8 attention=1.25 whole=0",
    ],
)
def test_scaling_is_read_backwards(text: str) -> None:
    config = Config(scaling_keys(parse_rope_scaling(text)))
    assert parse_rope_scaling(scaling(Config(), config.table("rope_scaling"))) == parse_rope_scaling(text)
    ours = {"rope_theta": 5.0, "rope_scaling": parse_rope_scaling(text)}
    found = rope().settings(Config(rope().inverse_of(ours)))
    assert (found["rope_theta"], parse_rope_scaling(found["rope_scaling"])) == (5.0, parse_rope_scaling(text))


def test_rope_writes_other_names_and_no_rule_that_only_lmzoo_has() -> None:
    assert scaling_keys(parse_rope_scaling("ntk factor=2")) == {}
    partial = rope(fraction="share", old="rotary_pct", base="rotary_emb_base", scaled=False)
    ours = {"rope_theta": 5.0, "share": 0.5}
    assert partial.inverse_of(ours) == {"rotary_emb_base": 5.0, "rotary_pct": 0.5}
    assert partial.settings(Config(partial.inverse_of(ours))) == ours


@pytest.mark.parametrize("model_type", ["gpt_neox", "phi3", "qwen3_next", "bamba", "phi", "stablelm"])
def test_rope_refuses_an_odd_number_of_rotated_features(model_type: str) -> None:
    """For an odd number, transformers computes one frequency more and rotates one feature more."""
    keys = {**case_keys(model_type), "hidden_size": 48, "num_attention_heads": 4, "head_dim": 12}
    if model_type not in ("phi3", "qwen3_next"):
        del keys["head_dim"]
    for share in (0.25, 0.5):
        keys["rope_parameters"] = {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": share}
        keys |= {"mamba_n_heads": 8} if model_type == "bamba" else {}
        architecture = ARCHITECTURES[model_type]
        if share == 0.5:
            architecture.settings(Config(keys), WITHOUT_EFFECT)
            continue
        with pytest.raises(CheckpointError, match=r"^partial_rotary_factor=0\.25 must give an even number of features"):
            architecture.settings(Config(keys), WITHOUT_EFFECT)


def test_rope_takes_a_default_rule_only_without_parameters() -> None:
    rule = {"rope_type": "linear", "factor": 4.0}
    scaled = rope(5.0, default=rule)
    assert scaled.settings(Config()) == {"rope_theta": 5.0, "rope_scaling": "linear factor=4.0"}
    assert scaled.settings(Config(rope_theta=7.0))["rope_theta"] == 7.0
    assert rope(5.0, default={**rule, "rope_theta": 6.0}).settings(Config(rope_theta=7.0))["rope_theta"] == 6.0
    plain = {"rope_theta": 5.0, "rope_scaling": "none"}
    assert scaled.settings(Config(rope_parameters={})) == plain
    assert scaled.settings(Config(scaled.inverse_of({**plain, "rope_scaling": None}))) == plain
