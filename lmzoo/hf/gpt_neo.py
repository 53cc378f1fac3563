"""GPT-Neo, GPT-BigCode (StarCoder, SantaCoder), BioGPT, XGLM and the first GPT in transformers."""

from __future__ import annotations

import math
from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Settings, To, Together, Unread, Unused, refused
from lmzoo.hf.gpt2 import ACTIVATIONS, GPT2, conv1d
from lmzoo.hf.keys import EVERY, SIZES, SUMMARY, unused, without
from lmzoo.hf.layouts import PerHead, Skipped
from lmzoo.hf.names import as_stored, both, frame, full_qkv
from lmzoo.hf.weights import Head, Weights

_LAYER = "transformer.h.{i}."
_FRAME: Weights = {
    **frame("transformer.wte", "transformer.ln_f"),
    "norm.bias": "transformer.ln_f.bias",
    "positions.weight": "transformer.wpe.weight",
    **both("blocks.{i}.0.before", f"{_LAYER}ln_1"),
    **both("blocks.{i}.1.before", f"{_LAYER}ln_2"),
    **both("blocks.{i}.1.inner.up", f"{_LAYER}mlp.c_fc"),
    **both("blocks.{i}.1.inner.down", f"{_LAYER}mlp.c_proj"),
}
_KINDS = {"global": "full", "local": "window"}


def _layers(config: Config) -> dict[str, Any]:
    """Returns the layers: pieces of words, each with the number of its repetitions, or a word for each layer."""
    default: list[Any] = [[["global", "local"], 12]]
    pieces, words = config.value("attention_types", default), list[Any]()
    counted = Config({**config, "num_hidden_layers": config.value("num_layers", 24)})
    for piece in pieces:
        if not (isinstance(piece, list) and [*map(type, piece)] == [list, int]):
            raise refused("attention_types", pieces, "must have lists of words, each with a number of repetitions")
        if not 0 < len(piece[0]) * piece[1] <= counted.layers() - len(words):
            raise refused("attention_types", pieces, f"must have a word for each of {counted.layers()} layers")
        words += piece[0] * piece[1]
    found = Config({**counted, "attention_types": words}).words("attention_types", _KINDS)
    if config.get("attention_layers", words) != words:
        raise refused("attention_layers", config["attention_layers"], "must agree with attention_types")
    return {"n_layers": counted.layers(), "pattern": " ".join(found)}


def _layers_keys(ours: Settings) -> dict[str, Any]:
    theirs = {word: kind for kind, word in _KINDS.items()}
    words = [theirs[word] for word in ours["pattern"]]
    return {"num_layers": ours["n_layers"], "attention_types": [[words, 1]]}


GPT_NEO = Architecture(
    model_type="gpt_neo",
    classes=("GPTNeoForCausalLM",),
    family="gpt_neo",
    weights={
        **_FRAME,
        **full_qkv("blocks.{i}.0.inner.", f"{_LAYER}attn.attention."),
        **both("blocks.{i}.0.inner.out", f"{_LAYER}attn.attention.out_proj"),
    },
    keys={
        **without(SIZES, "num_hidden_layers"),
        "num_heads": To("n_heads"),
        "intermediate_size": To("d_ff", None),
        "window_size": To("window", 256, null=False),
        "activation_function": To("activation", "gelu_new", ACTIVATIONS),
        "layer_norm_epsilon": To("norm_eps", 1e-5),
        "tie_word_embeddings": To("tie_embeddings", default=True),
        **unused("embed_dropout", "classifier_dropout"),
        **SUMMARY,
    },
    together=(Together(("num_layers", "attention_types", "attention_layers"), _layers, _layers_keys),),
    aliases={"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"},
    prefix="transformer.",
    buffers=("*.attn.attention.bias", "*.attn.attention.masked_bias"),
)


def _bigcode(config: Config) -> Weights:
    """Returns the names for a config: with a head of keys for each query, the fused rows are ordered by head."""
    layout = as_stored if config.value("multi_query", default=True) else PerHead
    return {
        **_FRAME,
        **both("blocks.{i}.0.inner.qkv", f"{_LAYER}attn.c_attn", layout),
        **both("blocks.{i}.0.inner.out", f"{_LAYER}attn.c_proj"),
    }


def _heads(config: Config) -> dict[str, Any]:
    return {"n_kv_heads": 1 if config.value("multi_query", default=True) else None}


def _heads_keys(ours: Settings) -> dict[str, Any]:
    return {"multi_query": ours["n_kv_heads"] == 1}


_SERVER = (
    *("inference_runner", "validate_runner_input", "runner_max_sequence_length", "max_batch_size"),
    *("max_sequence_length", "pad_key_length", "pre_allocate_kv_cache", "num_key_value_heads"),
    *("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32"),
)
GPT_BIGCODE = Architecture(
    model_type="gpt_bigcode",
    classes=("GPTBigCodeForCausalLM",),
    family="gpt_neo",
    weights=_bigcode,
    keys={
        **without(GPT2.keys, "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"),
        "activation_function": To("activation", "gelu_pytorch_tanh", ACTIVATIONS),
        "scale_attn_weights": To("scaled_scores", default=True),
        **unused(*_SERVER),
    },
    together=(Together(("multi_query",), _heads, _heads_keys),),
    aliases=GPT2.aliases,
    prefix=GPT2.prefix,
    fixed={"pattern": "full", "attention_bias": "all"},
    buffers=GPT2.buffers,
)


def _factor(width: str) -> Together:
    """Returns the key of the factor of the embeddings, whose width is this key.

    It also gives the epsilon of the norms, which no key of these configs changes.
    """

    def settings(config: Config) -> dict[str, Any]:
        scaled = config.value("scale_embedding", default=True)
        return {"embedding_scale": math.sqrt(config.value(width, 1024)) if scaled else 1.0, "norm_eps": 1e-5}

    return Together(("scale_embedding",), settings, lambda ours: {"scale_embedding": ours["embedding_scale"] != 1})


def _fairseq(layer: str) -> Weights:
    """Returns the names of a block of fairseq's decoder."""
    return {
        **both("blocks.{i}.0.before", f"{layer}self_attn_layer_norm"),
        **full_qkv("blocks.{i}.0.inner.", f"{layer}self_attn."),
        **both("blocks.{i}.0.inner.out", f"{layer}self_attn.out_proj"),
        **both("blocks.{i}.1.before", f"{layer}final_layer_norm"),
        **both("blocks.{i}.1.inner.up", f"{layer}fc1"),
        **both("blocks.{i}.1.inner.down", f"{layer}fc2"),
    }


_FAIRSEQ = {"pattern": "full", "attention_bias": "all", "scaled_scores": True}
BIOGPT = Architecture(
    model_type="biogpt",
    classes=("BioGptForCausalLM",),
    family="gpt_neo",
    weights={
        "tokens.weight": "biogpt.embed_tokens.weight",
        "positions.weight": Skipped("biogpt.embed_positions.weight", rows=2),
        **_fairseq("biogpt.layers.{i}."),
        **both("norm", "biogpt.layer_norm"),
        "head.weight": Head("output_projection.weight", tokens="biogpt.embed_tokens.weight"),
    },
    keys={
        **SIZES,
        "num_attention_heads": To("n_heads"),
        "intermediate_size": To("d_ff"),
        "hidden_act": To("activation", "gelu", ACTIVATIONS),
        "layer_norm_eps": Unused(),
        "tie_word_embeddings": To("tie_embeddings", default=True),
    },
    together=(_factor("hidden_size"),),
    prefix="biogpt.",
    fixed=_FAIRSEQ,
)
XGLM = Architecture(
    model_type="xglm",
    classes=("XGLMForCausalLM",),
    family="gpt_neo",
    weights={
        **frame("model.embed_tokens", "model.layer_norm"),
        "norm.bias": "model.layer_norm.bias",
        **_fairseq("model.layers.{i}."),
    },
    keys={
        **EVERY,
        "vocab_size": To("vocab_size"),
        "max_position_embeddings": To("context_length", 2048),
        "d_model": To("d_model"),
        "num_layers": To("n_layers"),
        "attention_heads": To("n_heads"),
        "ffn_dim": To("d_ff"),
        "activation_function": To("activation", "gelu", ACTIVATIONS),
        "tie_word_embeddings": To("tie_embeddings", default=True),
        "init_std": Unused(),
    },
    together=(_factor("d_model"),),
    aliases={"hidden_size": "d_model", "num_attention_heads": "attention_heads", "num_hidden_layers": "num_layers"},
    fixed={**_FAIRSEQ, "positions": "sines"},
    buffers=("model.embed_positions.weights",),
)


_ONLY_GPT2 = (
    *("n_inner", "activation_function", "scale_attn_weights", "scale_attn_by_inverse_layer_idx"),
    "reorder_and_upcast_attn",
)
OPENAI_GPT = Architecture(
    model_type="openai-gpt",
    classes=("OpenAIGPTLMHeadModel",),
    family="gpt_neo",
    weights={
        "tokens.weight": "transformer.tokens_embed.weight",
        "positions.weight": "transformer.positions_embed.weight",
        **conv1d("blocks.{i}.0.inner.qkv", f"{_LAYER}attn.c_attn"),
        **conv1d("blocks.{i}.0.inner.out", f"{_LAYER}attn.c_proj"),
        **both("blocks.{i}.1", f"{_LAYER}ln_1"),
        **conv1d("blocks.{i}.2.inner.up", f"{_LAYER}mlp.c_fc"),
        **conv1d("blocks.{i}.2.inner.down", f"{_LAYER}mlp.c_proj"),
        **both("blocks.{i}.3", f"{_LAYER}ln_2"),
        "head.weight": Head("lm_head.weight", tokens="transformer.tokens_embed.weight"),
    },
    keys={
        **without(GPT2.keys, *_ONLY_GPT2),
        "n_positions": To("context_length", 512),
        "afn": To("activation", "gelu", {"gelu": "gelu_tanh", "relu": "relu"}),
        "n_special": Unread(0),
        "predict_special_tokens": Unused(),
    },
    aliases=GPT2.aliases,
    prefix=GPT2.prefix,
    fixed={"pattern": "full", "attention_bias": "all", "scaled_scores": True, "norm_sums": True, "d_ff": None},
    buffers=GPT2.buffers,
)
