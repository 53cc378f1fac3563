"""GPT-NeoX, Pythia and StarCoder 2 in transformers."""

from __future__ import annotations

from lmzoo.hf.architecture import Architecture, Only, To, Unread, Unused
from lmzoo.hf.keys import GELUS, SIZES, unused
from lmzoo.hf.layouts import PerHead
from lmzoo.hf.names import both, frame, qkv
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Weights

WEIGHTS: Weights = {
    **frame("gpt_neox.embed_in", "gpt_neox.final_layer_norm"),
    **both("blocks.{i}.0.before", "gpt_neox.layers.{i}.input_layernorm"),
    **both("blocks.{i}.0.inner.qkv", "gpt_neox.layers.{i}.attention.query_key_value", PerHead),
    **both("blocks.{i}.0.inner.out", "gpt_neox.layers.{i}.attention.dense"),
    **both("blocks.{i}.1.before", "gpt_neox.layers.{i}.post_attention_layernorm"),
    **both("blocks.{i}.1.inner.up", "gpt_neox.layers.{i}.mlp.dense_h_to_4h"),
    **both("blocks.{i}.1.inner.down", "gpt_neox.layers.{i}.mlp.dense_4h_to_h"),
    "norm.bias": "gpt_neox.final_layer_norm.bias",
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

_LAYER = "model.layers.{i}."
STARCODER2 = Architecture(
    model_type="starcoder2",
    classes=("Starcoder2ForCausalLM",),
    family="gpt_neox",
    weights={
        **frame("model.embed_tokens", "model.norm"),
        "norm.bias": "model.norm.bias",
        **both("blocks.{i}.0.before", f"{_LAYER}input_layernorm"),
        **qkv(f"{_LAYER}self_attn."),
        **both("blocks.{i}.0.inner.out", f"{_LAYER}self_attn.o_proj"),
        **both("blocks.{i}.1.before", f"{_LAYER}post_attention_layernorm"),
        **both("blocks.{i}.1.inner.up", f"{_LAYER}mlp.c_fc"),
        **both("blocks.{i}.1.inner.down", f"{_LAYER}mlp.c_proj"),
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
