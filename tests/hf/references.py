"""Tiny random checkpoints of transformers, and the comparison of their logits with lmzoo's.

`CASES` has an entry for each model type that lmzoo loads: add one with a new architecture.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # no downloads: the references are built from small configurations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

import lmzoo
from tests.backbones.against_transformers import perturb, random_tokens

V, T = 61, 24
NOISE = 30.0  # our difference from transformers, in units of its own rounding error


@dataclass(frozen=True)
class Case:
    """The keys of a tiny config; each of `variants` changes some of them and is compared too."""

    keys: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])


LLAMA: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "rms_norm_eps": 0.02,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    "pad_token_id": None,
    "tie_word_embeddings": False,
}


def rope(kind: str, **parameters: Any) -> dict[str, Any]:
    """Returns the change of a config to other rotary positions."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 100.0, **parameters}}


QWEN: dict[str, Mapping[str, Any]] = {
    "windows": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "layer types": {
        "use_sliding_window": True,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "tied": {"tie_word_embeddings": True},
}
CASES: dict[str, Case] = {
    "gpt2": Case(
        {
            "vocab_size": V,
            "n_positions": 32,
            "n_embd": 24,
            "n_layer": 3,
            "n_head": 2,
            "n_inner": 40,
            "layer_norm_epsilon": 0.02,
        },
        {"untied": {"tie_word_embeddings": False, "n_inner": None}},
    ),
    "llama": Case(
        LLAMA,
        {
            "biases, head_dim": {"attention_bias": True, "head_dim": 6},
            "tied": {"tie_word_embeddings": True, "num_key_value_heads": 1},
            "linear": rope("linear", factor=3.0),
            "llama3": rope(
                "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=3.0, original_max_position_embeddings=12
            ),
            "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=8, beta_fast=20.0, beta_slow=0.5),
            "yarn, attention": rope("yarn", factor=4.0, attention_factor=1.7, truncate=False),
            "yarn, mscale": rope("yarn", factor=4.0, mscale=0.7, mscale_all_dim=0.4),
        },
    ),
    "mistral": Case({**LLAMA, "sliding_window": 5}, {"no window": {"sliding_window": None, "head_dim": 12}}),
    "qwen2": Case(LLAMA, QWEN),
    "qwen3": Case({**LLAMA, "head_dim": 12}, {**QWEN, "biases": {"attention_bias": True}}),
    "olmo2": Case(LLAMA, {"tied": {"tie_word_embeddings": True, "num_key_value_heads": 4}}),
    "mamba2": Case(
        {
            "vocab_size": V,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "state_size": 12,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
            "conv_kernel": 3,
            "expand": 2,
            "layer_norm_epsilon": 0.02,
            "chunk_size": 8,
            "pad_token_id": None,
        },
        {"tied": {"tie_word_embeddings": True, "n_groups": 4, "expand": 1, "num_heads": 4}},
    ),
}


def reference(model_type: str, **keys: Any) -> PreTrainedModel:
    """Returns a perturbed model of transformers with these keys in its config."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **keys)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return perturb(model)  # type: ignore[return-value]


def case_keys(model_type: str, variant: str = "") -> dict[str, Any]:
    """Returns the keys of a case, changed by one of its variants."""
    case = CASES[model_type]
    return {**case.keys, **(case.variants[variant] if variant else {})}


def saved(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    """Saves a model of transformers, and returns the folder."""
    model.save_pretrained(folder, **options)
    return folder


@torch.no_grad()
def logits_of(model: PreTrainedModel, idx_BT: Tensor) -> Tensor:
    """Returns the logits of a full forward pass with explicit positions."""
    known = inspect.signature(model.forward).parameters
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in known else {}
    if "position_ids" in known:
        options["position_ids"] = torch.arange(idx_BT.shape[1])[None].expand(len(idx_BT), -1)
    return model(idx_BT, **options).logits


@torch.no_grad()
def assert_same_logits(ours: lmzoo.LanguageModel, theirs: PreTrainedModel, length: int = T) -> None:
    """Compares logits in float32, in units of the rounding error of the reference: its difference from float64."""
    idx_BT = random_tokens(ours.config.vocab_size, 2, length)
    expected = logits_of(theirs, idx_BT)
    exact = logits_of(theirs.double(), idx_BT)
    theirs.float()
    assert expected.std() > 0.3, "the weights must make the logits differ"
    noise = (expected - exact).abs().max().item() + 1e-7 * exact.abs().max().item()
    difference = (ours(idx_BT).logits - exact).abs().max().item()
    assert difference < NOISE * noise, f"the logits differ by {difference / noise:.3g} times the rounding error"
