"""BLOOM and MPT in transformers."""

from __future__ import annotations

from lmzoo.hf.architecture import Architecture, Config, Only, To, Unused, checked, refused
from lmzoo.hf.keys import EVERY, WITHOUT_EFFECT, unused
from lmzoo.hf.layouts import PerHead
from lmzoo.hf.names import both, frame
from lmzoo.hf.weights import Weights

WEIGHTS: Weights = {
    **frame("transformer.word_embeddings", "transformer.ln_f"),
    **both("embedding_norm", "transformer.word_embeddings_layernorm"),
    **both("blocks.{i}.0.before", "transformer.h.{i}.input_layernorm"),
    **both("blocks.{i}.0.inner.qkv", "transformer.h.{i}.self_attention.query_key_value", PerHead),
    **both("blocks.{i}.0.inner.out", "transformer.h.{i}.self_attention.dense"),
    **both("blocks.{i}.1.before", "transformer.h.{i}.post_attention_layernorm"),
    **both("blocks.{i}.1.inner.up", "transformer.h.{i}.mlp.dense_h_to_4h"),
    **both("blocks.{i}.1.inner.down", "transformer.h.{i}.mlp.dense_4h_to_h"),
    "norm.bias": "transformer.ln_f.bias",
}


def _slices(config: Config) -> None:
    """Refuses sums over slices of the last projections, in which transformers leaves out the biases."""
    if config.value("slow_but_exact", False) and config.value("pretraining_tp", 1) > 1:
        raise refused("slow_but_exact", True, "must be false with pretraining_tp above 1")


BLOOM = Architecture(
    model_type="bloom",
    classes=("BloomForCausalLM",),
    family="alibi",
    weights=WEIGHTS,
    keys={
        **EVERY,
        "vocab_size": To("vocab_size"),
        "hidden_size": To("d_model"),
        "n_layer": To("n_layers"),
        "n_head": To("n_heads"),
        "seq_length": To("context_length", 2048),
        "n_inner": Only(None),
        "layer_norm_epsilon": To("norm_eps", 1e-5),
        "tie_word_embeddings": To("tie_embeddings", default=True),
        "apply_residual_connection_post_layernorm": Only(False),
        "offset_alibi": Unused(),
        **unused("skip_bias_add", "skip_bias_add_qkv", "bias_dropout_fusion"),
        **unused("attention_softmax_in_fp32", "masked_softmax_fusion"),
    },
    together=(checked(("slow_but_exact", "pretraining_tp"), _slices),),
    aliases={"n_embed": "hidden_size", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
    fixed={"embedding_norm": True},
    prefix="transformer.",
)


def _attention(config: Config) -> None:
    """Checks the keys of MPT's attention."""
    table = config.table("attn_config")
    for key, meaning in _ATTENTION.items():
        meaning.settings(key, table)
    for key in table:
        if key not in _ATTENTION and key not in WITHOUT_EFFECT:
            raise refused(key, table[key], "is not a key of attn_config that lmzoo knows")


_ATTENTION = {
    **EVERY,
    "alibi": Only(True),
    "alibi_bias_max": Only(8),
    "attn_type": Only("multihead_attention"),
    "clip_qkv": Only(None),
    "softmax_scale": Only(None),
    "qk_ln": Only(False),
    "prefix_lm": Only(False),
    "attn_uses_sequence_id": Only(False),
    "attn_impl": Unused(),
}
_BLOCK = "transformer.blocks.{i}."
MPT = Architecture(
    model_type="mpt",
    classes=("MptForCausalLM", "MPTForCausalLM"),
    family="alibi",
    weights={
        **frame("transformer.wte", "transformer.norm_f"),
        "blocks.{i}.0.before.weight": f"{_BLOCK}norm_1.weight",
        "blocks.{i}.0.inner.qkv.weight": f"{_BLOCK}attn.Wqkv.weight",
        "blocks.{i}.0.inner.out.weight": f"{_BLOCK}attn.out_proj.weight",
        "blocks.{i}.1.before.weight": f"{_BLOCK}norm_2.weight",
        "blocks.{i}.1.inner.up.weight": f"{_BLOCK}ffn.up_proj.weight",
        "blocks.{i}.1.inner.down.weight": f"{_BLOCK}ffn.down_proj.weight",
    },
    keys={
        **EVERY,
        "vocab_size": To("vocab_size"),
        "d_model": To("d_model"),
        "n_layers": To("n_layers"),
        "n_heads": To("n_heads"),
        "max_seq_len": To("context_length", 2048),
        "layer_norm_epsilon": To("norm_eps", 1e-5),
        "tie_word_embeddings": To("tie_embeddings", default=True),
        "expansion_ratio": Only(4),
        "no_bias": Only(True),
        "logit_scale": Only(None),
        "embedding_fraction": Only(1.0),
        "norm_type": Only("low_precision_layernorm", ("layernorm",)),
        **unused("learned_pos_emb", "emb_pdrop", "init_device", "init_config", "verbose"),
    },
    together=(checked(("attn_config",), _attention),),
    aliases={"hidden_size": "d_model", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"},
    fixed={"bias": False, "activation": "gelu"},
    prefix="transformer.",
)
