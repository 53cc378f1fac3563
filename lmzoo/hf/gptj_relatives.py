"""CodeGen, Falcon, OLMo, Jais 2, Nemotron and Persimmon in transformers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lmzoo.hf import keys as shared
from lmzoo.hf.architecture import Architecture, Config, Only, Same, Settings, To, Together, Unread, keys_from, refused
from lmzoo.hf.gptj import FRAME, GATED, GPTJ, GPTJ_WEIGHTS, LAYER, SIZES, head, parallel, rotary_dim
from lmzoo.hf.keys import GELUS, HEAD_DIM, SWIGLU, without
from lmzoo.hf.layouts import Neighbors, PartByHead, PerGroup, PerHead, Rows, Source
from lmzoo.hf.llama import BIASES, all_biases
from lmzoo.hf.names import both, qkv
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Weights

# The fused rows are ordered by chunk, of which there are four, and in a chunk by query, value, key.
_FUSED = "transformer.h.{i}.attn.qkv_proj.weight"
_Q, _V, _K = (PartByHead(_FUSED, 4, which, (1, 1, 1)) for which in range(3))


def _chunks(config: Config) -> dict[str, Any]:
    """Requires the heads to fill the chunks of the fused projection."""
    if config.value("n_head", 16) % 4:
        raise refused("n_head", config.get("n_head"), "must be a multiple of 4")
    return {"n_heads": config.value("n_head", 16)}


CODEGEN = replace(
    GPTJ,
    model_type="codegen",
    classes=("CodeGenForCausalLM",),
    weights={
        **GPTJ_WEIGHTS,
        "blocks.{i}.inner.0.qkv.weight": Rows(
            (*(Neighbors(part, "rotary_dim", "n_heads", first=True) for part in (_Q, _K)), _V)
        ),
    },
    keys=without(GPTJ.keys, "n_head"),
    together=(Together(("n_head",), _chunks, keys_from({"n_head": "n_heads"})),),
    buffers=(*GPTJ.buffers, "*.attn.causal_mask"),
)
_FALCON = "transformer.h.{i}."
_BLOCK: dict[str, Source] = {
    **both("blocks.{i}.0.before", f"{_FALCON}input_layernorm"),
    **both("blocks.{i}.0.inner.qkv", f"{_FALCON}self_attention.query_key_value", PerGroup),
    **both("blocks.{i}.0.inner.out", f"{_FALCON}self_attention.dense"),
    **both("blocks.{i}.1.inner.up", f"{_FALCON}mlp.dense_h_to_4h"),
    **both("blocks.{i}.1.inner.down", f"{_FALCON}mlp.dense_4h_to_h"),
}


def _falcon(config: Config) -> dict[str, Any]:
    """Returns the heads of keys and values, and the order of the layers."""
    new, heads = config.value("new_decoder_architecture", False), config.value("num_attention_heads", 71)
    norms, parallel = config.value("num_ln_in_parallel_attn", None, int), config.value("parallel_attn", True)
    if norms not in (1, None) or (new and norms != 1):
        raise refused("num_ln_in_parallel_attn", norms, "must be 1: lmzoo's gptj has one norm for parallel layers")
    if new and not parallel:
        raise refused("parallel_attn", parallel, "must be true with new_decoder_architecture")
    kv_heads = config.value("num_kv_heads", heads) if new or not config.value("multi_query", True) else 1
    return {"n_kv_heads": kv_heads, "parallel": parallel}


def _falcon_keys(ours: Settings) -> dict[str, Any]:
    """Returns the keys of the new form for grouped queries, which the old one does not have."""
    heads, groups = ours["n_heads"], ours["n_kv_heads"]
    if groups in (1, heads):
        return {"multi_query": groups == 1, "parallel_attn": ours["parallel"]}
    return {"new_decoder_architecture": True, "num_kv_heads": groups, "num_ln_in_parallel_attn": 1}


FALCON = Architecture(
    model_type="falcon",
    classes=("FalconForCausalLM",),
    family="gptj",
    weights={
        "tokens.weight": "transformer.word_embeddings.weight",
        **_BLOCK,
        **both("blocks.{i}.1.before", f"{_FALCON}post_attention_layernorm"),
        **parallel(_BLOCK),
        **both("norm", "transformer.ln_f"),
        **head("transformer.word_embeddings.weight"),
    },
    keys={
        **shared.SIZES,
        "num_attention_heads": To("n_heads"),
        "max_position_embeddings": To("context_length", 2048),
        "ffn_hidden_size": To("d_ff", None),
        "layer_norm_epsilon": To("norm_eps", 1e-5),
        "activation": To("activation", "gelu", {**GELUS, "relu2": "relu2"}),
        "alibi": Only(False),
        "ff_factor": Unread(4),
        "apply_residual_connection_post_layernorm": Only(False),
        "tie_word_embeddings": To("tie_embeddings", default=True),
    },
    together=(
        rope(),
        Together(
            (
                *("new_decoder_architecture", "multi_query", "num_kv_heads"),
                *("num_ln_in_parallel_attn", "parallel_attn"),
            ),
            _falcon,
            _falcon_keys,
        ),
        all_biases("bias"),
    ),
    aliases={"n_embed": "hidden_size"},
    prefix="transformer.",
    fixed={"head_bias": False},
)


_SEQUENCE: Weights = {
    **FRAME,
    **both("blocks.{i}.0.before", f"{LAYER}input_layernorm"),
    **qkv(f"{LAYER}self_attn."),
    **both("blocks.{i}.0.inner.out", f"{LAYER}self_attn.o_proj"),
    **both("blocks.{i}.1.before", f"{LAYER}post_attention_layernorm"),
}
OLMO = Architecture(
    model_type="olmo",
    classes=("OlmoForCausalLM",),
    family="gptj",
    weights={**_SEQUENCE, **GATED},
    keys={
        **without(SIZES, "layer_norm_eps"),
        **HEAD_DIM,
        "hidden_act": SWIGLU,
        "attention_bias": To("attention_bias", default=False, values=BIASES),
        "tie_word_embeddings": To("tie_embeddings", default=False),
        "clip_qkv": Only(None),
    },
    together=(rope(),),
    fixed={"parallel": False, "gated": True, "mlp_bias": False, "head_bias": False}
    | {"norm_weight": False, "norm_bias": False},
)
JAIS2 = Architecture(
    model_type="jais2",
    classes=("Jais2ForCausalLM",),
    family="gptj",
    weights={
        **_SEQUENCE,
        **both("blocks.{i}.1.inner.up", f"{LAYER}mlp.up_proj"),
        **both("blocks.{i}.1.inner.down", f"{LAYER}mlp.down_proj"),
    },
    keys={
        **SIZES,
        **HEAD_DIM,
        "hidden_act": Only("relu2"),
        "attention_bias": To("attention_bias", default=True, values=BIASES),
        "mlp_bias": To("mlp_bias", default=True),
        "tie_word_embeddings": To("tie_embeddings", default=False),
    },
    together=(rope(),),
    fixed={"parallel": False, "activation": "relu2", "head_bias": False},
)
NEMOTRON = Architecture(
    model_type="nemotron",
    classes=("NemotronForCausalLM",),
    family="gptj",
    weights=JAIS2.weights,
    keys={
        **without(JAIS2.keys, "layer_norm_eps"),
        "norm_eps": To("norm_eps", 1e-5),
        "attention_bias": To("attention_bias", default=False, values=BIASES),
        "mlp_bias": To("mlp_bias", default=False),
    },
    together=(rotary_dim(0.5),),
    fixed={**JAIS2.fixed, "norm_offset": True},
)


_ATTENTION, _MLP = f"{LAYER}self_attn.", f"{LAYER}mlp."
PERSIMMON = Architecture(
    model_type="persimmon",
    classes=("PersimmonForCausalLM",),
    family="gptj",
    weights={
        **_SEQUENCE,
        **both("blocks.{i}.0.inner.qkv", f"{_ATTENTION}query_key_value", PerHead),
        **both("blocks.{i}.0.inner.q_norm", f"{_ATTENTION}q_layernorm"),
        **both("blocks.{i}.0.inner.k_norm", f"{_ATTENTION}k_layernorm"),
        **both("blocks.{i}.0.inner.out", f"{_ATTENTION}dense"),
        **both("blocks.{i}.1.inner.up", f"{_MLP}dense_h_to_4h"),
        **both("blocks.{i}.1.inner.down", f"{_MLP}dense_4h_to_h"),
        **both("norm", "model.final_layernorm"),
    },
    keys={
        **SIZES,
        "num_key_value_heads": Same("num_attention_heads", 64),
        "hidden_act": Only("relu2"),
        "qk_layernorm": To("shared_qk_norm", default=True),
        "tie_word_embeddings": To("tie_embeddings", default=False),
    },
    together=(rotary_dim(0.5),),
    fixed={"parallel": False, "activation": "relu2", "attention_bias": "all", "head_bias": False},
    buffers=("*.rotary_emb.inv_freq",),
)
