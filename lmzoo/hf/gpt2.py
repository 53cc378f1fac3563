"""GPT-2 and OPT in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Only, To, Together, Unread, Unused, refused
from lmzoo.hf.keys import EVERY, GELUS, SIZES, SUMMARY, unused
from lmzoo.hf.layouts import Skipped, Source, Transposed
from lmzoo.hf.names import both, frame, full_qkv
from lmzoo.hf.weights import Weights


def conv1d(ours: str, theirs: str) -> dict[str, Source]:
    """Returns the names of a projection whose weight is stored as (in, out)."""
    return {f"{ours}.weight": Transposed(f"{theirs}.weight"), f"{ours}.bias": f"{theirs}.bias"}


WEIGHTS: Weights = {
    **frame("transformer.wte", "transformer.ln_f"),
    "positions.weight": "transformer.wpe.weight",
    **both("blocks.{i}.norm_1", "transformer.h.{i}.ln_1"),
    **conv1d("blocks.{i}.attention.qkv", "transformer.h.{i}.attn.c_attn"),
    **conv1d("blocks.{i}.attention.out", "transformer.h.{i}.attn.c_proj"),
    **both("blocks.{i}.norm_2", "transformer.h.{i}.ln_2"),
    **conv1d("blocks.{i}.up", "transformer.h.{i}.mlp.c_fc"),
    **conv1d("blocks.{i}.down", "transformer.h.{i}.mlp.c_proj"),
    "norm.bias": "transformer.ln_f.bias",
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
        **frame("model.decoder.embed_tokens", "model.decoder.final_layer_norm"),
        "positions.weight": Skipped("model.decoder.embed_positions.weight", rows=2),
        "norm.bias": "model.decoder.final_layer_norm.bias",
        **both("blocks.{i}.norm_1", f"{_LAYER}self_attn_layer_norm"),
        **full_qkv("blocks.{i}.attention.", f"{_LAYER}self_attn."),
        **both("blocks.{i}.attention.out", f"{_LAYER}self_attn.out_proj"),
        **both("blocks.{i}.norm_2", f"{_LAYER}final_layer_norm"),
        **both("blocks.{i}.up", f"{_LAYER}fc1"),
        **both("blocks.{i}.down", f"{_LAYER}fc2"),
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
