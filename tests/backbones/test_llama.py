"""Llama and its relatives compared with transformers' classes of the same names, same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

import lmzoo
from lmzoo.configs import to_dict
from lmzoo.errors import ConfigError
from lmzoo.hf.llama import WEIGHTS
from lmzoo.hf.weights import Weights, convert
from lmzoo.layers.gated_attention import GatedAttention
from lmzoo.layers.scored_attention import ScoredAttention
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    ours_with_weights_of,
    perturb,
    random_tokens,
)

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-5,
    "pad_token_id": None,  # the embedding of a padding token gets no gradient
}
SETTINGS = {"vocab_size": 61, "context_length": 16, "d_model": 32, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2}


def scaled(kind: str, **parameters: Any) -> LlamaConfig:
    """Returns transformers' config of a Llama with a rule for longer texts."""
    return LlamaConfig(**SIZES, rope_parameters={"rope_type": kind, "rope_theta": 10000.0, **parameters})


THEIRS: dict[str, tuple[type, Any, Weights, dict[str, Any]]] = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES), WEIGHTS, {}),
    "llama, biases": (
        LlamaForCausalLM,
        LlamaConfig(**SIZES, attention_bias=True),
        WEIGHTS,
        {"attention_bias": "all"},
    ),
    "llama, linear": (LlamaForCausalLM, scaled("linear", factor=4.0), WEIGHTS, {"rope_scaling": "linear factor=4"}),
    "llama, dynamic": (  # at a text of 40 tokens: 4 * 40 / 16 - 3
        LlamaForCausalLM,
        scaled("dynamic", factor=4.0),
        WEIGHTS,
        {"rope_scaling": "ntk factor=7"},
    ),
    "llama, yarn": (
        LlamaForCausalLM,
        scaled("yarn", factor=4.0, original_max_position_embeddings=16),
        WEIGHTS,
        {"rope_scaling": "yarn factor=4 original=16"},
    ),
    "llama 3.1": (
        LlamaForCausalLM,
        scaled("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
        WEIGHTS,
        {"rope_scaling": "llama3 factor=4 original=16"},
    ),
    "mistral": (MistralForCausalLM, MistralConfig(**SIZES, sliding_window=7), WEIGHTS, {"window": 7}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES), WEIGHTS, {"attention_bias": "qkv"}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=16), WEIGHTS, {"qk_norm": True, "head_dim": 16}),
    "smollm3": (
        SmolLM3ForCausalLM,
        SmolLM3Config(**SIZES, no_rope_layers=[1, 1, 0]),
        WEIGHTS,
        {"pattern": "rope*2 nope"},
    ),
    "no positions": (SmolLM3ForCausalLM, SmolLM3Config(**SIZES, no_rope_layers=[0] * 3), WEIGHTS, {"pattern": "nope"}),
}


@pytest.mark.parametrize("relative", THEIRS)
def test_llama_logits_and_gradients_equal_transformers(relative: str) -> None:
    """Covers several KV heads and a sequence longer than window and context; forward and step by step."""
    cls, config, weights, options = THEIRS[relative]
    theirs = perturb(cls(config))
    parameters = config.rope_parameters
    settings = {**SETTINGS, "d_ff": 48, "rope_theta": parameters["rope_theta"], "norm_eps": 1e-5, **options}
    settings["tie_embeddings"] = config.tie_word_embeddings
    ours = ours_with_weights_of(theirs, "llama", weights, **settings)
    idx = random_tokens(61, 3, 40)
    expected = theirs(idx, labels=idx)
    assert expected.logits.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(ours(idx).logits, expected.logits, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected.logits.detach(), [17, 1, 1, 9, 1, 11])
    expected.loss.backward()
    loss = torch.nn.functional.cross_entropy(ours(idx).logits[:, :-1].flatten(0, 1), idx[:, 1:].flatten())
    loss.backward()
    gradients = convert({name: p.grad for name, p in theirs.named_parameters()}, weights, to_dict(ours.config))
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(ours.get_parameter(name).grad, gradient, atol=TOLERANCE * largest, rtol=0)


def test_llama_state_is_bounded_by_the_window() -> None:
    sizes = {"vocab_size": 61, "d_model": 32, "n_layers": 2, "n_heads": 4}
    windowed, full = (lmzoo.create_model("llama", window=window, **sizes) for window in (8, None))
    assert windowed.state_bytes(1000) == windowed.state_bytes(16)
    assert full.state_bytes(1000) == 1000 * full.state_bytes(1)


def test_llama_passes_its_options_to_the_attention() -> None:
    """The gate and the sinks have tests of their own in tests/layers."""
    gated, sinking = (
        lmzoo.create_model("llama", **{**SETTINGS, "window": 5, "pattern": "rope nope full"}, **options)
        for options in ({"gate": True, "sinks": True}, {"sinks": True})
    )
    for model, cls in ((gated, GatedAttention), (sinking, ScoredAttention)):
        first, second, third = (block[0].inner for block in model.blocks)
        assert type(first) is type(second) is cls
        assert (third.window, third.rope) == (None, first.rope)
        assert first.sinks is not None
        assert (first.window, second.window, second.rope) == (5, None, None)


@pytest.mark.parametrize(
    ("preset", "params"),
    [
        ("mistral-7b", 7_241_732_096),
        ("llama31-8b", 8_030_261_248),
        ("qwen2-500m", 494_032_768),
        ("qwen3-600m", 596_049_920),
        ("smollm3-3b", 3_075_098_624),
    ],
)
def test_llama_presets_have_the_published_number_of_parameters(preset: str, params: int) -> None:
    assert lmzoo.create_model(f"llama.{preset}", device="meta").num_params() == params


@pytest.mark.parametrize("preset", ["mistral-1m", "qwen3-1m", "smollm3-1m"])
def test_llama_presets_have_the_size_of_their_names(preset: str) -> None:
    assert abs(lmzoo.create_model(f"llama.{preset}", vocab_size=256, device="meta").num_params() / 1e6 - 1) < 0.05


def test_llama_config_names_field_and_rule() -> None:
    with pytest.raises(ConfigError, match=r"head_dim=7 must be even to be rotated"):
        lmzoo.create_model("llama", vocab_size=13, head_dim=7)
    with pytest.raises(ConfigError, match=r"rope_scaling='yarn factor=4' must also have original=NUMBER"):
        lmzoo.create_model("llama", vocab_size=13, rope_scaling="yarn factor=4")
    with pytest.raises(ConfigError, match=r"pattern='local': 'local' must be one of rope, full, nope"):
        lmzoo.create_model("llama", vocab_size=13, pattern="local")
    with pytest.raises(ConfigError, match=r"pattern='rope nope_window' has nope_window: window must be a number"):
        lmzoo.create_model("llama", vocab_size=13, pattern="rope nope_window")
