"""Tests of the metadata of a GGUF file: sizes, rotary positions and kinds of layers under the keys of llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lmzoo
from lmzoo.gguf.write import write_gguf
from tests.gguf.files import llama, read_back

HYBRID_KEYS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "qwen3next": (
        "qwen3_next",
        {"n_layers": 6, "pattern": "delta*2 attention", "feed_forward": "experts", "delta_heads": 4, "key_dim": 6}
        | {"delta_key_heads": 2, "d_expert": 12, "d_shared": 20, "head_dim": 8, "rotary_fraction": 0.5},
        {"full_attention_interval": 3, "ssm.group_count": 2, "ssm.time_step_rank": 4, "ssm.inner_size": 24}
        | {"ssm.state_size": 6, "expert_shared_feed_forward_length": 20, "rope.dimension_count": 4},
    ),
    "kimi-linear": (
        "deepseek",
        {"n_layers": 3, "pattern": "kda*2 nope", "latent_eps": 1e-6, "kda_dim": 6, "n_dense": 1, "kv_rank": 12},
        {"attention.head_count_kv": [0, 0, 1], "kda.head_dim": 6, "leading_dense_block_count": 1},
    ),
    "jamba": (
        "hybrid",
        {"n_layers": 4, "pattern": "mamba nope+experts", "select_norm": True, "normalize": False, "n_kv_heads": 2}
        | {"dt_rank": 3, "d_state": 5},
        {"attention.head_count_kv": [0, 2, 0, 2], "ssm.time_step_rank": 3, "ssm.inner_size": 64, "ssm.state_size": 5}
        | {"expert_count": 8, "expert_used_count": 2},
    ),
    "granitehybrid": (
        "granite",
        {"n_layers": 3, "pattern": "mamba2*2 nope", "n_kv_heads": 2, "ssm_head_dim": 4, "ssm_groups": 2},
        {"attention.head_count_kv": [0, 0, 2], "ssm.time_step_rank": 16, "ssm.group_count": 2, "expert_count": 0}
        | {"rope.scaling.finetuned": False},
    ),
    "falcon-h1": (
        "falcon_h1",
        {"n_layers": 2, "n_kv_heads": 2, "head_dim": 6, "d_ssm": 24, "ssm_heads": 2, "tie_embeddings": False},
        {"attention.head_count_kv": 2, "ssm.time_step_rank": 2, "ssm.inner_size": 24, "attention.key_length": 6},
    ),
    "gpt-oss": (
        "mixtral",
        {"n_layers": 4, "pattern": "rope full", "window": 9, "sinks": True, "clamp": 7.0, "attention_bias": "all"}
        | {"d_ff": 24},
        {"attention.sliding_window": 9, "expert_feed_forward_length": 24, "expert_count": 8},
    ),
    "afmoe": (
        "deepseek",
        {"n_layers": 4, "pattern": "window*3 grouped_nope", "window": 9, "gate": True, "post_norms": True}
        | {"qk_norm": "head", "embedding_scale": 32**0.5, "routed_scale": 2.5},
        {"attention.sliding_window": 9, "expert_shared_count": 1, "expert_weights_scale": 2.5}
        | {"leading_dense_block_count": 1, "expert_gating_func": 2},
    ),
    "lfm2moe": (
        "lfm2",
        {
            "n_layers": 3,
            "pattern": "conv attention",
            "feed_forward": "mlp experts experts",
            "d_expert": 12,
            "n_kv_heads": 2,
        },
        {"attention.head_count_kv": [0, 2, 0], "leading_dense_block_count": 1, "expert_gating_func": 2},
    ),
}


def test_write_gguf_keys_of_llama(tmp_path: Path) -> None:
    write_gguf(llama(rope_theta=5e5, norm_eps=1e-6, rope_scaling="yarn factor=4 original=32"), tmp_path / "a.gguf")
    _, facts = read_back(tmp_path / "a.gguf")
    wanted = {
        "context_length": 64,
        "embedding_length": 32,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 8,
        "rope.dimension_count": 8,
        "rope.freq_base": 5e5,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 32,
    }
    assert {name: facts[f"llama.{name}"] for name in wanted} == wanted
    assert facts["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert (facts["tokenizer.ggml.model"], facts["general.file_type"]) == ("none", 0)


def test_write_gguf_factors_of_rotary_frequencies(tmp_path: Path) -> None:
    """llama.cpp divides each frequency by a tensor: those that Llama 3's rule slows by the whole factor have it."""
    scaling = "llama3 factor=8 original=16 low=1 high=4"
    write_gguf(llama(rope_scaling=scaling, head_dim=16, rope_theta=100.0), tmp_path / "a.gguf")
    factors = read_back(tmp_path / "a.gguf")[0]["rope_freqs.weight"]
    assert factors.shape == (8,)
    assert factors[0] == 1.0 or factors[0] < 8.0
    assert factors[-1] == 8.0
    assert (np.diff(factors) >= 0).all()


def test_write_gguf_keys_of_deepseek(tmp_path: Path) -> None:
    """llama.cpp computes with the cached features as one head of keys, and has the widths of heads beside it."""
    sizes = {"vocab_size": 61, "d_model": 32, "n_layers": 3, "n_heads": 4, "context_length": 64, "latent_eps": 1e-6}
    latent = {"q_rank": 12, "kv_rank": 16, "nope_dim": 10, "rope_dim": 6, "v_dim": 8, "routed_scale": 2.5, "n_dense": 1}
    write_gguf(lmzoo.create_model("deepseek", **sizes, **latent), tmp_path / "a.gguf")
    _, facts = read_back(tmp_path / "a.gguf")
    wanted = {
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": 12,
        "attention.kv_lora_rank": 16,
        "attention.key_length": 22,
        "attention.value_length": 16,
        "attention.key_length_mla": 16,
        "attention.value_length_mla": 8,
        "rope.dimension_count": 6,
        "leading_dense_block_count": 1,
        "expert_weights_scale": 2.5,
        "expert_weights_norm": True,
        "expert_gating_func": 2,
        "expert_shared_count": 1,
    }
    assert {name: facts[f"deepseek2.{name}"] for name in wanted} == wanted


def test_write_gguf_of_lfm2_names_the_layers_with_attention(tmp_path: Path) -> None:
    model = lmzoo.create_model(
        "lfm2", vocab_size=61, d_model=32, n_layers=3, pattern="conv attention conv", n_kv_heads=2
    )
    write_gguf(model, tmp_path / "a.gguf")
    _, facts = read_back(tmp_path / "a.gguf")
    assert (facts["lfm2.attention.head_count_kv"], facts["lfm2.shortconv.l_cache"]) == ([0, 2, 0], 3)


@pytest.mark.parametrize("arch", HYBRID_KEYS)
def test_write_gguf_keys_of_layers_of_two_kinds(arch: str, tmp_path: Path) -> None:
    family, settings, wanted = HYBRID_KEYS[arch]
    model = lmzoo.create_model(family, vocab_size=61, d_model=32, n_heads=4, **settings)
    assert write_gguf(model, tmp_path / "a.gguf").arch == arch
    _, facts = read_back(tmp_path / "a.gguf")
    assert {name: facts[f"{arch}.{name}"] for name in wanted} == wanted
