"""Rotary frequencies for longer texts: transformers' own, limits, and the errors of the text form."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lmzoo import registry
from lmzoo.errors import ConfigError
from lmzoo.layers.rope_scaling import (
    NTK,
    Divided,
    Dynamic,
    Linear,
    Llama3,
    LongRope,
    RopeScaling,
    Yarn,
    parse_rope_scaling,
    require_rope_scaling,
    require_rotary_fraction,
)

PAIRS, THETA = 16, 10000.0
SHORT, LONG = (tuple(1 + step * k for k in range(PAIRS)) for step in (0.1, 0.5))
LONGROPE: dict[str, object] = {
    "rope_type": "longrope",
    "short_factor": [*SHORT],
    "long_factor": [*LONG],
    "original_max_position_embeddings": 512,
}
FEWER = {"original_max_position_embeddings": 2048}
FREQUENCY_K = THETA ** -(torch.arange(PAIRS, dtype=torch.float64) / PAIRS)


@pytest.mark.parametrize(
    ("scaling", "theirs"),
    [
        (Linear(4.0), {"rope_type": "linear", "factor": 4.0}),
        (Dynamic(4.0, 512), {"rope_type": "dynamic", "factor": 4.0}),
        (LongRope(4.0, 512, SHORT, LONG), {**LONGROPE, "factor": 4.0}),
        (LongRope(1.0, 2048, SHORT, LONG, attention=1.7), {**LONGROPE, "attention_factor": 1.7, **FEWER}),
        (Yarn(4.0, 512), {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}),
        (
            Yarn(8.0, 2048, fast=20.0, slow=2.0),
            {
                "rope_type": "yarn",
                "factor": 8.0,
                "original_max_position_embeddings": 2048,
                "beta_fast": 20.0,
                "beta_slow": 2.0,
            },
        ),
        (
            Yarn(4.0, 512, attention=1.7, whole=0),
            {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 512,
                "attention_factor": 1.7,
                "truncate": False,
            },
        ),
        # The first pair that is slowed, and the last that is not slowed fully, would lie outside of the head.
        (Yarn(4.0, 64), {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}),
        (Yarn(4.0, 4), {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4}),
        (
            Yarn(4.0, 65536, fast=3200.0),
            {
                "rope_type": "yarn",
                "rope_theta": 50.0,
                "factor": 4.0,
                "original_max_position_embeddings": 65536,
                "beta_fast": 3200.0,
            },
        ),
        (
            Llama3(8.0, 512, low=1.0, high=4.0),
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "original_max_position_embeddings": 512,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
            },
        ),
    ],
)
def test_rope_scaling_equals_transformers(scaling: RopeScaling, theirs: dict[str, object]) -> None:
    rope_parameters: dict[str, Any] = {"rope_theta": THETA, **theirs}
    theta = rope_parameters["rope_theta"]
    frequency_K = theta ** -(torch.arange(PAIRS, dtype=torch.float64) / PAIRS)
    config = LlamaConfig(
        hidden_size=2 * PAIRS,
        num_attention_heads=1,
        max_position_embeddings=512,
        rope_parameters=rope_parameters,
    )
    scaling = scaling.at(3 * 512)
    expected_K, magnitude = ROPE_INIT_FUNCTIONS[str(theirs["rope_type"])](config, torch.device("cpu"), seq_len=3 * 512)
    torch.testing.assert_close(scaling.scaled(frequency_K, theta).float(), expected_K, rtol=1e-5, atol=0)
    assert scaling.magnitude == pytest.approx(magnitude)


def test_rope_scaling_depends_on_the_length_of_the_text_where_its_rule_does() -> None:
    dynamic, longrope, yarn = Dynamic(4.0, 512), LongRope(4.0, 512, SHORT, LONG), Yarn(4.0, 512)
    assert dynamic.at(1) == dynamic.at(512) == NTK(1.0)
    assert dynamic.at(1536) == NTK(9.0)
    assert longrope.at(512) == Divided(4.0, SHORT, longrope.magnitude)
    assert longrope.at(513) == Divided(4.0, LONG, longrope.magnitude)
    assert yarn.at(10_000) is yarn


def test_require_rope_scaling_counts_the_rotated_pairs() -> None:
    config = SimpleNamespace(rope_scaling="longrope factor=4 original=8 short=1,1.5 long=2,4,5")
    with pytest.raises(ConfigError, match=r"^rope_scaling: long has 3 numbers, but heads have 2 rotated pairs$"):
        require_rope_scaling(config, 5.0)
    config.rope_scaling = "none"
    require_rope_scaling(config, 5.0)
    config = SimpleNamespace(rope_scaling="yarn factor=4 original=8", rope_theta=1.0)
    with pytest.raises(ConfigError, match=r"^rope_theta=1\.0 must not be 1 with rope_scaling='yarn"):
        require_rope_scaling(config, 4.0)


@pytest.mark.parametrize("scaling", [Linear(1.0), NTK(1.0), Yarn(1.0, 512), Llama3(1.0, 512)])
def test_rope_scaling_by_one_changes_nothing(scaling: RopeScaling) -> None:
    torch.testing.assert_close(scaling.scaled(FREQUENCY_K, THETA), FREQUENCY_K)
    assert scaling.magnitude == 1


@pytest.mark.parametrize("scaling", [NTK(4.0), Yarn(4.0, 512), Llama3(4.0, 512)])
def test_rope_scaling_keeps_the_fastest_pair_and_slows_the_slowest(scaling: RopeScaling) -> None:
    ratio_K = scaling.scaled(FREQUENCY_K, THETA) / FREQUENCY_K
    torch.testing.assert_close(ratio_K[[0, -1]], torch.tensor([1.0, 0.25], dtype=torch.float64))
    assert (ratio_K.diff() <= 1e-12).all()
    assert scaling.scaled(FREQUENCY_K[:1], THETA).isfinite().all(), "a head of two features"


def test_parse_rope_scaling_reads_a_rule() -> None:
    assert parse_rope_scaling("none") is None
    assert parse_rope_scaling("linear factor=4") == Linear(4.0)
    assert parse_rope_scaling("yarn original=2048 factor=1.5") == Yarn(1.5, 2048)
    longrope = parse_rope_scaling("longrope factor=4 original=8 short=1,1.5 long=2,4")
    assert longrope == LongRope(4.0, 8, (1.0, 1.5), (2.0, 4.0))
    assert parse_rope_scaling("llama3 factor=8 original=8192 high=5") == Llama3(8.0, 8192, high=5.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be none, or begin with one of linear, ntk, dynamic, yarn, longrope, llama3"),
        ("static factor=4", "must be none, or begin with one of linear, ntk, dynamic, yarn, longrope, llama3"),
        ("dynamic factor=4", "must also have original=NUMBER"),
        ("longrope factor=2 original=8 short=1 long=1,a", r"long=a must be a number from 0 to 2\^40"),
        ("longrope factor=2 original=8 short=1,0 long=1,1", "short and long must have numbers above 0"),
        ("linear factor=4 " + 60 * "factor=4 ", r"^rope_scaling=.{87}\.\.\.': 'factor=4' must be one of"),
        ("linear", r"must also have factor=NUMBER"),
        ("linear 4", r"'4' must be one of factor=NUMBER"),
        ("linear factor=4 factor=4", r"'factor=4' must be one of"),
        ("linear factor=nan", r"factor=nan must be a number from 1 to 2\^40"),
        ("yarn factor=2 original=1.5", r"original=1.5 must be a whole number from 1 to 2\^40"),
        ("llama3 factor=2 original=8 low=4", r"low=4\.0 must be below high=4\.0"),
        ("yarn factor=2 original=8 slow=40", r"slow=40\.0 must be above 0 and below fast=32\.0"),
        ("yarn factor=2 original=8 slow=0", r"slow=0\.0 must be above 0 and below fast=32\.0"),
        ("longrope factor=2 original=1 short=1 long=2", r"original=1 must be at least 2, or have attention=NUMBER"),
    ],
)
def test_parse_rope_scaling_names_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_rope_scaling(text)


def test_require_rope_scaling_guards_every_family_with_the_setting() -> None:
    rule = "longrope factor=2 original=8 short=1,1,1 long=2,2,2"
    families = [
        name for name in registry.families() if hasattr(registry.model_class(name).config_class, "rope_scaling")
    ]
    assert len(families) > 10
    for family in families:
        with pytest.raises(ConfigError, match="short has 3 numbers"):
            registry.model_class(family).config_class(vocab_size=9, d_model=32, rope_scaling=rule)


def test_require_rotary_fraction_returns_the_number_of_rotated_features() -> None:
    def features(fraction: float, **sizes: Any) -> int:
        return require_rotary_fraction(SimpleNamespace(d_model=48, n_heads=4, rotary_fraction=fraction, **sizes))

    assert [features(share) for share in (1.0, 0.5, 0.25, 0.0)] == [12, 6, 2, 0]
    assert features(0.5, head_dim=6) == 2, "rounded down"
    assert features(0.5, head_dim=None) == 6
    with pytest.raises(ConfigError, match=r"rotary_fraction=1\.5 must be in \[0, 1\]"):
        features(1.5)
    with pytest.raises(ConfigError, match=r"rotary_fraction=0\.25 of head_dim=6 must be at least 2 features"):
        features(0.25, head_dim=6)
    unrotated = SimpleNamespace(d_model=4, n_heads=4, rotary_fraction=1.0)
    assert require_rotary_fraction(unrotated, rotated=False) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yarn factor=2 original=8", {0: None, 8: None, 9: None}),
        ("dynamic factor=2 original=8", {0: 8, 8: 8, 9: 9, 20: 20}),
        ("longrope factor=2 original=8 short=1,1 long=2,3", {0: 8, 8: 8, 9: None}),
    ],
)
def test_same_until_is_the_length_up_to_which_the_rule_is_the_same(text: str, expected: dict[int, int | None]) -> None:
    rule = parse_rope_scaling(text)
    assert rule is not None
    for length, limit in expected.items():
        assert rule.same_until(length) == limit
        if limit is not None:
            assert all(rule.at(n) == rule.at(max(1, length)) for n in range(max(1, length), limit + 1))
            assert rule.at(limit + 1) != rule.at(limit)
