"""Gemma, Gemma 2, VaultGemma and Gemma 3 (text) in transformers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Only, Settings, To, Together, Unread, Unused
from lmzoo.hf.keys import ATTENTION, GELU_TANH, without
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.rotary import ROPE, rope, ropes_by_kind, scaling_keys
from lmzoo.hf.weights import Weights
from lmzoo.hf.windows import all_but_each, window_keys

WEIGHTS: Weights = {
    **LLAMA,
    "blocks.{i}.0.after.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blocks.{i}.1.before.weight": "model.layers.{i}.pre_feedforward_layernorm.weight",
    "blocks.{i}.1.after.weight": "model.layers.{i}.post_feedforward_layernorm.weight",
    "head.linear.weight": LLAMA["head.weight"],  # with a cap
}
_KINDS = {"sliding_attention": "local", "full_attention": "global"}


KEYS = {
    **ATTENTION,
    "num_key_value_heads": To("n_kv_heads", 4),
    "head_dim": To("head_dim", 256),
    "hidden_activation": GELU_TANH,
    "hidden_act": Only("gelu_pytorch_tanh", ("gelu",)),  # not read by transformers: an old name
    "tie_word_embeddings": To("tie_embeddings", default=True),
    "query_pre_attn_scalar": To("query_scalar", 256),
    "attention_bias": Only(False),
    "use_bidirectional_attention": Only(False, (None,)),
    "cache_implementation": Unused(),
    "_sliding_window_pattern": Unused(),
}


def _gemma2(config: Config) -> dict[str, Any]:
    """Returns the layers. Windows have the rotary positions of the other layers, with a rule for longer texts too."""
    found, windows = rope().settings(config), all_but_each(2, _KINDS).settings(config)
    if found["rope_scaling"] != "none":
        windows = {**windows, "pattern": windows["pattern"].replace("local", "window")}
    return {**found, **windows, "local_rope_theta": found["rope_theta"]}


def _gemma2_keys(ours: Settings) -> dict[str, Any]:
    windowed = "local" if ours["rope_scaling"] is None else "window"
    kinds = {"sliding_attention": windowed, "full_attention": "global"}
    return {**rope().inverse_of(ours), **window_keys(kinds)(ours)}


GEMMA2 = Architecture(
    model_type="gemma2",
    classes=("Gemma2ForCausalLM",),
    family="gemma3",
    weights=WEIGHTS,
    keys={
        **KEYS,
        "sliding_window_pattern": Unread(2),
        "final_logit_softcapping": To("logit_cap", 30.0),
        "attn_logit_softcapping": To("attention_cap", 50.0),
    },
    together=(Together((*ROPE, "layer_types", "sliding_window"), _gemma2, _gemma2_keys),),
    aliases={"sliding_window_size": "sliding_window"},
    fixed={"qk_norm": False},
)
VAULTGEMMA = replace(
    GEMMA2,
    model_type="vaultgemma",
    classes=("VaultGemmaForCausalLM",),
    fixed={"qk_norm": False, "post_norms": False},
)
GEMMA = Architecture(
    model_type="gemma",
    classes=("GemmaForCausalLM",),
    family="gemma3",
    weights=LLAMA,
    keys={
        **without(KEYS, "query_pre_attn_scalar", "hidden_activation"),
        "num_key_value_heads": To("n_kv_heads", 16),
        "hidden_activation": Only(None, ("gelu_pytorch_tanh",)),  # not read by transformers: an old name
    },
    together=(rope(),),
    fixed={"qk_norm": False, "post_norms": False, "pattern": "global"},
)


def _two_ropes(config: Config) -> dict[str, Any]:
    return ropes_by_kind(config, 1e6, config.value("rope_local_base_freq", 1e4, float))


def _two_ropes_keys(ours: Settings) -> dict[str, Any]:
    thetas = {"rope_theta": ours["rope_theta"], "rope_local_base_freq": ours["local_rope_theta"]}
    return {**thetas, **scaling_keys(ours["rope_scaling"])}


GEMMA3_TEXT = Architecture(
    model_type="gemma3_text",
    classes=("Gemma3ForCausalLM",),
    family="gemma3",
    weights=WEIGHTS,
    keys={
        **KEYS,
        "final_logit_softcapping": To("logit_cap", None),
        "attn_logit_softcapping": Only(None),  # transformers does not apply it
    },
    together=(
        all_but_each(6, _KINDS),
        Together(
            ("rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq"), _two_ropes, _two_ropes_keys
        ),
    ),
)
