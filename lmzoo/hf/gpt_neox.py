"""GPT-NeoX, Pythia and StarCoder 2 in transformers."""

from __future__ import annotations

from lmzoo.hf.architecture import Architecture, Only, To, Unread, Unused
from lmzoo.hf.keys import GELUS, SIZES, unused
from lmzoo.hf.layouts import PerHead, qkv_rows
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Head, Weights

WEIGHTS: Weights = {
    "tokens.weight": "gpt_neox.embed_in.weight",
    "blocks.{i}.0.before.weight": "gpt_neox.layers.{i}.input_layernorm.weight",
    "blocks.{i}.0.before.bias": "gpt_neox.layers.{i}.input_layernorm.bias",
    "blocks.{i}.0.inner.qkv.weight": PerHead("gpt_neox.layers.{i}.attention.query_key_value.weight"),
    "blocks.{i}.0.inner.qkv.bias": PerHead("gpt_neox.layers.{i}.attention.query_key_value.bias"),
    "blocks.{i}.0.inner.out.weight": "gpt_neox.layers.{i}.attention.dense.weight",
    "blocks.{i}.0.inner.out.bias": "gpt_neox.layers.{i}.attention.dense.bias",
    "blocks.{i}.1.before.weight": "gpt_neox.layers.{i}.post_attention_layernorm.weight",
    "blocks.{i}.1.before.bias": "gpt_neox.layers.{i}.post_attention_layernorm.bias",
    "blocks.{i}.1.inner.up.weight": "gpt_neox.layers.{i}.mlp.dense_h_to_4h.weight",
    "blocks.{i}.1.inner.up.bias": "gpt_neox.layers.{i}.mlp.dense_h_to_4h.bias",
    "blocks.{i}.1.inner.down.weight": "gpt_neox.layers.{i}.mlp.dense_4h_to_h.weight",
    "blocks.{i}.1.inner.down.bias": "gpt_neox.layers.{i}.mlp.dense_4h_to_h.bias",
    "norm.weight": "gpt_neox.final_layer_norm.weight",
    "norm.bias": "gpt_neox.final_layer_norm.bias",
    "head.weight": Head("lm_head.weight", tokens="gpt_neox.embed_in.weight"),
}

GPT_NEOX = Architecture(
    model_type="gpt_neox",
    classes=("GPTNeoXForCausalLM",),
    family="gpt_neox",
    weights=WEIGHTS,
    keys={
        **SIZES,
        "num_attention_heads": To("n_heads"),
        "intermediate_size": To("d_ff"),
        "layer_norm_eps": To("norm_eps", 1e-5),
        "hidden_act": To("activation", "gelu", GELUS),
        "use_parallel_residual": To("parallel_residual", default=True),
        "tie_word_embeddings": To("tie_embeddings", default=False),
        "attention_bias": Only(True),
    },
    together=(rope(fraction="rotary_fraction", share=0.25, old="rotary_pct", base="rotary_emb_base"),),
    prefix="gpt_neox.",
    old_names={"embed_out.weight": "lm_head.weight"},
    buffers=("*.attention.bias", "*.attention.masked_bias", "*.rotary_emb.inv_freq"),
)

_ATTENTION = "model.layers.{i}.self_attn."
STARCODER2 = Architecture(
    model_type="starcoder2",
    classes=("Starcoder2ForCausalLM",),
    family="gpt_neox",
    weights={
        "tokens.weight": "model.embed_tokens.weight",
        **{
            f"blocks.{{i}}.{ours}.{kind}": f"model.layers.{{i}}.{theirs}.{kind}"
            for ours, theirs in (
                ("0.before", "input_layernorm"),
                ("0.inner.out", "self_attn.o_proj"),
                ("1.before", "post_attention_layernorm"),
                ("1.inner.up", "mlp.c_fc"),
                ("1.inner.down", "mlp.c_proj"),
            )
            for kind in ("weight", "bias")
        },
        **{f"blocks.{{i}}.0.inner.qkv.{kind}": qkv_rows(_ATTENTION, kind) for kind in ("weight", "bias")},
        "norm.weight": "model.norm.weight",
        "norm.bias": "model.norm.bias",
        "head.weight": Head("lm_head.weight", tokens="model.embed_tokens.weight"),
    },
    keys={
        **SIZES,
        "num_attention_heads": To("n_heads"),
        "num_key_value_heads": To("n_kv_heads", 2),
        "intermediate_size": To("d_ff"),
        "norm_epsilon": To("norm_eps", 1e-5),
        "sliding_window": To("window", None),
        "use_bias": To("bias", default=True),
        "hidden_act": To("activation", "gelu_pytorch_tanh", GELUS),
        "tie_word_embeddings": To("tie_embeddings", default=True),
        "residual_dropout": Unused(),
        "mlp_type": Unread("default"),
        "norm_type": Unread("layer_norm"),
        **unused("activation_function", "layer_norm_epsilon", "rms_norm_eps"),
        **unused("scale_attn_weights", "attention_softmax_in_fp32"),
        "scale_attention_softmax_in_fp32": Unused(),
    },
    together=(rope(),),
    fixed={"parallel_residual": False, "rotary_fraction": 1.0},
    buffers=("*.rotary_emb.inv_freq",),
)
