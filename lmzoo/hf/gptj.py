"""GPT-J, Phi, Cohere's Command R and Command A, and StableLM in transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lmzoo.hf import keys as shared
from lmzoo.hf.architecture import Architecture, Config, Key, Only, Settings, To, Together, Unread, Unused
from lmzoo.hf.keys import EVERY, GELU_TANH, HEAD_DIM, SUMMARY, SWIGLU, unused
from lmzoo.hf.layouts import Neighbors, Source, Stacked, Transposed
from lmzoo.hf.llama import BIASES, QKV_BIASES
from lmzoo.hf.names import both, gated, qkv
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Head, Weights
from lmzoo.hf.windows import all_but_each

LAYER = "model.layers.{i}."


def _neighbors(name: str, heads: str) -> Source:
    return Neighbors(name, "rotary_dim", heads, first=True)


def _each_head(name: str) -> Source:
    """Returns the layout of weights (H, K) of neighbors."""
    return Transposed(Neighbors(Transposed(name), "rotary_dim", first=True))


def parallel(sequential: Mapping[str, Source]) -> dict[str, Source]:
    """Returns the names for blocks with one norm, from those of blocks in sequence."""
    names = {".0.before.": ".before.", ".0.inner.": ".inner.0.", ".1.inner.": ".inner.1."}
    found = {}
    for name, source in sequential.items():
        ours = next((name.replace(old, new) for old, new in names.items() if old in name), name)
        found[ours] = source
    return found


def head(tokens: str) -> Weights:
    """Returns the names of the head, also for one with a factor."""
    head = Head("lm_head.weight", tokens=tokens)
    return {"head.weight": head, "head.inner.weight": head, "head.bias": "lm_head.bias"}


def rotary_dim(share: float) -> Together:
    """Returns the keys of rotary positions, for the setting `rotary_dim`."""
    keys = rope(fraction="fraction", share=share)

    def settings(config: Config) -> dict[str, Any]:
        found = dict(keys.settings(config))
        equal = config.value("hidden_size", 0) // max(1, config.value("num_attention_heads", 1))
        width = config.value("head_dim", equal)
        fraction = found.pop("fraction")
        return {**found, "rotary_dim": int(width * fraction)}

    def inverse(ours: Settings) -> dict[str, Any]:
        width = ours["head_dim"] or ours["d_model"] // ours["n_heads"]
        fraction = ours["rotary_dim"] / width
        if int(width * fraction) != ours["rotary_dim"]:  # rounded down
            fraction = math.nextafter(fraction, 1)
        return keys.inverse_of({**ours, "fraction": fraction})

    return Together(keys.keys, settings, inverse)


SIZES: dict[str, Key] = {
    **shared.SIZES,
    "num_attention_heads": To("n_heads"),
    "num_key_value_heads": To("n_kv_heads", None),
    "intermediate_size": To("d_ff"),
    "layer_norm_eps": To("norm_eps", 1e-5),
}

_GPTJ = "transformer.h.{i}."
GPTJ_WEIGHTS: Weights = {
    "tokens.weight": "transformer.wte.weight",
    **parallel(
        {
            **both("blocks.{i}.0.before", f"{_GPTJ}ln_1"),
            **qkv(f"{_GPTJ}attn.", _neighbors),
            "blocks.{i}.0.inner.out.weight": f"{_GPTJ}attn.out_proj.weight",
            **both("blocks.{i}.1.inner.up", f"{_GPTJ}mlp.fc_in"),
            **both("blocks.{i}.1.inner.down", f"{_GPTJ}mlp.fc_out"),
        }
    ),
    **both("norm", "transformer.ln_f"),
    **head("transformer.wte.weight"),
}
GPTJ = Architecture(
    model_type="gptj",
    classes=("GPTJForCausalLM",),
    family="gptj",
    weights=GPTJ_WEIGHTS,
    keys={
        **EVERY,
        "vocab_size": To("vocab_size"),
        "n_positions": To("context_length"),
        "n_embd": To("d_model"),
        "n_layer": To("n_layers"),
        "n_head": To("n_heads"),
        "n_inner": To("d_ff", None),
        "rotary_dim": To("rotary_dim", 64),
        "layer_norm_epsilon": To("norm_eps", 1e-5),
        "activation_function": GELU_TANH,
        "tie_word_embeddings": Only(False),
        **unused("rotary", "n_ctx", "scale_attn_weights"),
        **SUMMARY,
    },
    aliases={"max_position_embeddings": "n_positions", "hidden_size": "n_embd"}
    | {"num_attention_heads": "n_head", "num_hidden_layers": "n_layer"},
    prefix="transformer.",
    buffers=("*.attn.bias", "*.attn.masked_bias"),
)
PHI = Architecture(
    model_type="phi",
    classes=("PhiForCausalLM",),
    family="gptj",
    weights={
        "tokens.weight": "model.embed_tokens.weight",
        **parallel(
            {
                **both("blocks.{i}.0.before", f"{LAYER}input_layernorm"),
                **qkv(f"{LAYER}self_attn."),
                **both("blocks.{i}.0.inner.out", f"{LAYER}self_attn.dense"),
                **both("blocks.{i}.1.inner.up", f"{LAYER}mlp.fc1"),
                **both("blocks.{i}.1.inner.down", f"{LAYER}mlp.fc2"),
            }
        ),
        **both("norm", "model.final_layernorm"),
        **head("model.embed_tokens.weight"),
    },
    keys={
        **SIZES,
        **HEAD_DIM,
        "hidden_act": GELU_TANH,
        "tie_word_embeddings": Only(False),
        "qk_layernorm": Only(False),
    },
    together=(rotary_dim(0.5),),
    fixed={"attention_bias": "all"},
    buffers=("*.rotary_emb.inv_freq",),
)

GATED: dict[str, Source] = {
    **both("blocks.{i}.0.before", f"{LAYER}input_layernorm"),
    **both("blocks.{i}.0.inner.out", f"{LAYER}self_attn.o_proj"),
    **gated("blocks.{i}.1.inner.", f"{LAYER}mlp."),
}
FRAME: Weights = {
    "tokens.weight": "model.embed_tokens.weight",
    **both("norm", "model.norm"),
    **head("model.embed_tokens.weight"),
}
COHERE = Architecture(
    model_type="cohere",
    classes=("CohereForCausalLM",),
    family="gptj",
    weights={
        **FRAME,
        **parallel(
            {
                **GATED,
                **qkv(f"{LAYER}self_attn.", _neighbors),
                "blocks.{i}.0.inner.q_norm.weight": _each_head(f"{LAYER}self_attn.q_norm.weight"),
                "blocks.{i}.0.inner.k_norm.weight": _each_head(f"{LAYER}self_attn.k_norm.weight"),
            }
        ),
    },
    keys={
        **SIZES,
        **HEAD_DIM,
        "hidden_act": SWIGLU,
        "logit_scale": To("logit_scale", 0.0625),
        "use_qk_norm": To("qk_norm", default=False),
        "attention_bias": To("attention_bias", default=False, values=BIASES),
        "tie_word_embeddings": To("tie_embeddings", default=True),
        "model_max_length": Unused(),
    },
    together=(rope(500000.0),),
    fixed={"gated": True, "norm_bias": False, "mlp_bias": False, "head_bias": False},
    buffers=("*.rotary_emb.inv_freq",),
)


COHERE2 = replace(
    COHERE,
    model_type="cohere2",
    classes=("Cohere2ForCausalLM",),
    keys={
        **COHERE.keys,
        "use_qk_norm": Unread(False),
        "order_of_interleaved_layers": Unread("local_attn_first"),
        "position_embedding_type": Unread("rope_gptj"),
        "rotary_pct": Unread(1.0),
        "use_gated_activation": Unread(True),
        "use_parallel_block": Unread(True),
        **unused("use_embedding_sharing", "use_parallel_embedding", "cache_implementation"),
        **unused("layer_switch", "_sliding_window_pattern"),
    },
    together=(
        rope(),
        all_but_each(4, {"sliding_attention": "window", "full_attention": "nope"}),
    ),
)
_STABLE: dict[str, Source] = {
    **GATED,
    **qkv(f"{LAYER}self_attn."),
    "blocks.{i}.0.inner.q_norm.weight": Stacked(f"{LAYER}self_attn.q_layernorm.norms.{{e}}.weight", "n_heads"),
    "blocks.{i}.0.inner.k_norm.weight": Stacked(f"{LAYER}self_attn.k_layernorm.norms.{{e}}.weight", "n_kv_heads"),
}
STABLELM = Architecture(
    model_type="stablelm",
    classes=("StableLmForCausalLM",),
    family="gptj",
    weights={
        **FRAME,
        **_STABLE,
        **both("blocks.{i}.1.before", f"{LAYER}post_attention_layernorm"),
        **parallel(_STABLE),
    },
    keys={
        **SIZES,
        "num_key_value_heads": To("n_kv_heads", 32),
        "hidden_act": SWIGLU,
        "use_parallel_residual": To("parallel", default=False),
        "use_qkv_bias": To("attention_bias", default=False, values=QKV_BIASES),
        "qk_layernorm": To("qk_norm", default=False),
        "tie_word_embeddings": To("tie_embeddings", default=False),
    },
    together=(rotary_dim(0.25),),
    fixed={"gated": True, "mlp_bias": False, "head_bias": False},
    buffers=("*.rotary_emb.inv_freq",),
)
