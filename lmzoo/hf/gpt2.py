"""GPT-2 and OPT in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Only, To, Together, Unread, Unused, refused
from lmzoo.hf.keys import EVERY, GELUS, SIZES, SUMMARY, unused
from lmzoo.hf.layouts import Rows, Skipped, Transposed
from lmzoo.hf.weights import Head, Weights

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


def _no_projection(config: Config) -> dict[str, Any]:
    """Refuses embeddings of another width than the blocks."""
    width = config.value("hidden_size", 768)
    if config.value("word_embed_proj_dim", width) != width:
        raise refused("word_embed_proj_dim", config["word_embed_proj_dim"], f"must be hidden_size={width}")
    return {}


ACTIVATIONS = {**GELUS, "relu": "relu"}
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
        "activation_function": To("activation", "gelu_new", ACTIVATIONS),
        "layer_norm_epsilon": To("norm_eps", 1e-5),
        "scale_attn_weights": Only(True),
        "scale_attn_by_inverse_layer_idx": Only(False),
        **unused("reorder_and_upcast_attn", "n_ctx"),
        **SUMMARY,
        "n_special": Unread(0),
        "predict_special_tokens": Unused(),
    },
    prefix="transformer.",
    aliases={"hidden_size": "n_embd", "max_position_embeddings": "n_positions"}
    | {"num_attention_heads": "n_head", "num_hidden_layers": "n_layer"},
    buffers=("*.attn.bias", "*.attn.masked_bias"),
    training=dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), "dropout"),
)

_LAYER = "model.decoder.layers.{i}."
OPT = Architecture(
    model_type="opt",
    classes=("OPTForCausalLM",),
    family="gpt2",
    weights={
        "tokens.weight": "model.decoder.embed_tokens.weight",
        "positions.weight": Skipped("model.decoder.embed_positions.weight", rows=2),
        **{
            f"blocks.{{i}}.{ours}.{kind}": f"{_LAYER}{theirs}.{kind}"
            for ours, theirs in (
                ("norm_1", "self_attn_layer_norm"),
                ("attention.out", "self_attn.out_proj"),
                ("norm_2", "final_layer_norm"),
                ("up", "fc1"),
                ("down", "fc2"),
            )
            for kind in ("weight", "bias")
        },
        **{
            f"blocks.{{i}}.attention.qkv.{kind}": Rows(tuple(f"{_LAYER}self_attn.{part}_proj.{kind}" for part in "qkv"))
            for kind in ("weight", "bias")
        },
        "norm.weight": "model.decoder.final_layer_norm.weight",
        "norm.bias": "model.decoder.final_layer_norm.bias",
        "head.weight": Head("lm_head.weight", tokens="model.decoder.embed_tokens.weight"),
    },
    keys={
        **SIZES,
        "num_attention_heads": To("n_heads"),
        "ffn_dim": To("d_ff"),
        "activation_function": To("activation", "relu", ACTIVATIONS),
        "tie_word_embeddings": To("tie_embeddings", default=True),
        "do_layer_norm_before": Only(True),
        "_remove_final_layer_norm": Only(False),
        "enable_bias": Only(True),
        "layer_norm_elementwise_affine": Only(True),
        "init_std": Unused(),
        "learned_embeddings": Unread(True),
        "scale_embeddings": Unread(False),
    },
    together=(
        Together(("word_embed_proj_dim",), _no_projection, lambda ours: {"word_embed_proj_dim": ours["d_model"]}),
    ),
    training={"dropout": "dropout", "attention_dropout": "dropout"},
)
