"""MiniMax-01 in transformers."""

from __future__ import annotations

from lmzoo.hf.architecture import Architecture, Config, Only, To, Unread
from lmzoo.hf.keys import ATTENTION, SWIGLU, unused
from lmzoo.hf.layer_types import layer_types, words_of
from lmzoo.hf.layouts import PerHead, Source, qkv_rows
from lmzoo.hf.mixtral import WEIGHTS as MIXTRAL
from lmzoo.hf.names import by_layer, frame
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Weights

_MIXER = "model.layers.{i}.self_attn."
_EXPERTS = ("router.weight", "up", "down")
BOTH: Weights = {
    **frame("model.embed_tokens", "model.norm"),
    "blocks.{i}.0.weight": "model.layers.{i}.input_layernorm.weight",
    "blocks.{i}.3.weight": "model.layers.{i}.post_attention_layernorm.weight",
    **{f"blocks.{{i}}.4.inner.{name}": MIXTRAL[f"blocks.{{i}}.1.inner.{name}"] for name in _EXPERTS},
}
MIXERS: dict[str, dict[str, Source]] = {
    "attention": {
        "qkv.weight": qkv_rows(_MIXER),
        "out.weight": f"{_MIXER}o_proj.weight",
    },
    "lightning": {
        "qkv.weight": PerHead(f"{_MIXER}qkv_proj.weight"),
        "gate.weight": f"{_MIXER}output_gate.weight",
        "norm.weight": f"{_MIXER}norm.weight",
        "out.weight": f"{_MIXER}out_proj.weight",
    },
}


def _every_second(config: Config) -> list[str]:
    """Returns the mixers by default: attention in every second layer, from the first on."""
    return ["lightning" if layer % 2 else "attention" for layer in range(config.layers())]


PATTERN = layer_types({"full_attention": "attention", "linear_attention": "lightning"}, _every_second)


def _weights(config: Config) -> Weights:
    """Returns the names of the weights. Those of the mixers depend on the layer."""
    return {**BOTH, **by_layer(words_of(PATTERN, config), MIXERS, "blocks.{i}.1.inner.")}


_PARTS = {"full_attn": "attention", "linear_attn": "lightning", "mlp": "mlp"}
MINIMAX = Architecture(
    model_type="minimax",
    classes=("MiniMaxForCausalLM",),
    family="minimax",
    weights=_weights,
    keys={
        **ATTENTION,
        "num_key_value_heads": To("n_kv_heads", 8),
        "head_dim": To("head_dim", None),
        "rms_norm_eps": To("norm_eps", 1e-5),
        "hidden_act": SWIGLU,
        "tie_word_embeddings": To("tie_embeddings", default=False),
        "num_local_experts": To("n_experts", 8),
        "num_experts_per_tok": To("top_k", 2),
        "sliding_window": Only(None),
        **{
            f"{theirs}_{factor}_factor": To(f"{ours}_{factor}", 1.0)
            for theirs, ours in _PARTS.items()
            for factor in ("alpha", "beta")
        },
        **unused(
            "block_size", "output_router_logits", "router_aux_loss_coef", "router_jitter_noise", "shared_moe_mode"
        ),
        "postnorm": Unread(True),
        "shared_intermediate_size": Unread(0),
    },
    together=(
        rope(1e6),
        PATTERN,
    ),
    fixed={"rotary_fraction": 1.0},
    aliases={"num_experts": "num_local_experts"},
    buffers=tuple(f"*.self_attn.{name}" for name in ("slope_rate", "query_decay", "key_decay", "diagonal_decay")),
)
