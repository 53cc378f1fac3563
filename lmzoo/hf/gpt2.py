"""GPT-2 in transformers."""

from __future__ import annotations

from lmzoo.hf.architecture import Architecture, Only, To, Unused
from lmzoo.hf.keys import EVERY, GELU_TANH
from lmzoo.hf.weights import Head, Transposed, Weights

WEIGHTS: Weights = {
    "tokens.weight": "transformer.wte.weight",
    "positions.weight": "transformer.wpe.weight",
    "blocks.{i}.norm_1.weight": "transformer.h.{i}.ln_1.weight",
    "blocks.{i}.norm_1.bias": "transformer.h.{i}.ln_1.bias",
    "blocks.{i}.attention.qkv.weight": Transposed("transformer.h.{i}.attn.c_attn.weight"),
    "blocks.{i}.attention.qkv.bias": "transformer.h.{i}.attn.c_attn.bias",
    "blocks.{i}.attention.out.weight": Transposed("transformer.h.{i}.attn.c_proj.weight"),
    "blocks.{i}.attention.out.bias": "transformer.h.{i}.attn.c_proj.bias",
    "blocks.{i}.norm_2.weight": "transformer.h.{i}.ln_2.weight",
    "blocks.{i}.norm_2.bias": "transformer.h.{i}.ln_2.bias",
    "blocks.{i}.up.weight": Transposed("transformer.h.{i}.mlp.c_fc.weight"),
    "blocks.{i}.up.bias": "transformer.h.{i}.mlp.c_fc.bias",
    "blocks.{i}.down.weight": Transposed("transformer.h.{i}.mlp.c_proj.weight"),
    "blocks.{i}.down.bias": "transformer.h.{i}.mlp.c_proj.bias",
    "norm.weight": "transformer.ln_f.weight",
    "norm.bias": "transformer.ln_f.bias",
    "head.weight": Head("lm_head.weight", tokens="transformer.wte.weight"),
}

GPT2 = Architecture(
    model_type="gpt2",
    classes=("GPT2LMHeadModel",),
    family="gpt2",
    weights=WEIGHTS,
    keys={
        **EVERY,
        "vocab_size": To("vocab_size"),
        "n_positions": To("context_length"),
        "n_embd": To("d_model"),
        "n_layer": To("n_layers"),
        "n_head": To("n_heads"),
        "n_inner": To("d_ff", None),
        "tie_word_embeddings": To("tie_embeddings", default=True),
        "activation_function": GELU_TANH,
        "layer_norm_epsilon": To("norm_eps", 1e-5),
        "scale_attn_weights": Only(True),
        "scale_attn_by_inverse_layer_idx": Only(False),
        "reorder_and_upcast_attn": Unused(),
        "n_ctx": Unused(),
        **{f"summary_{word}": Unused() for word in ("type", "use_proj", "activation", "proj_to_labels")},
        "summary_first_dropout": Unused(),
    },
    prefix="transformer.",
    buffers=("*.attn.bias", "*.attn.masked_bias"),
)
