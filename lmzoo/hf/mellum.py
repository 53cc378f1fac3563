"""Mellum 2 in transformers: Qwen3-MoE with windows, whose rotary wavelengths have a base of their own."""

from __future__ import annotations

from lmzoo.hf.architecture import Architecture, Config, To, Together, Unused, checked, refused
from lmzoo.hf.keys import unused
from lmzoo.hf.llama import BIASES
from lmzoo.hf.mixtral import EACH, KEYS
from lmzoo.hf.rotary import ropes_by_kind, ropes_by_kind_keys
from lmzoo.hf.windows import windows

_KINDS = {"sliding_attention": "local", "full_attention": "full"}


def _sparse(config: Config) -> None:
    """Refuses layers without experts."""
    kinds = config.get("mlp_layer_types")
    if kinds is not None and "dense" in config.words("mlp_layer_types", {"dense": "dense", "sparse": "sparse"}):
        raise refused("mlp_layer_types", kinds, "must be sparse in all layers")


MELLUM = Architecture(
    model_type="mellum",
    classes=("MellumForCausalLM",),
    family="mixtral",
    weights=EACH,
    keys={
        **KEYS,
        "num_key_value_heads": To("n_kv_heads", 4),
        "head_dim": To("head_dim", 128),
        "intermediate_size": Unused(),  # of layers without experts
        "moe_intermediate_size": To("d_ff", 896),
        "attention_bias": To("attention_bias", default=False, values=BIASES),
        "num_experts": To("n_experts", 64),
        "num_experts_per_tok": To("top_k", 8),
        "norm_topk_prob": To("normalize", default=True),
        **unused("num_mtp_layers", "mtp_layer_types", "mtp_mlp_layer_types"),
    },
    together=(
        Together(("rope_parameters",), lambda config: ropes_by_kind(config, 500000.0, 10000.0), ropes_by_kind_keys),
        windows(_KINDS, 1024, lambda *_: False),
        checked(("mlp_layer_types",), _sparse),
    ),
    aliases={"num_local_experts": "num_experts", "num_nextn_predict_layers": "num_mtp_layers"},
    fixed={"qk_norm": "head"},
    buffers=("mtp.*",),
)
