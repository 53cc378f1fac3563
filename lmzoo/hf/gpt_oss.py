"""gpt-oss in transformers, with weights of 16 or 32 bits: the released ones of 4 bits must be converted before."""

from __future__ import annotations

from lmzoo.hf.architecture import Architecture, Key, Only, To
from lmzoo.hf.keys import ATTENTION, SWIGLU, unused
from lmzoo.hf.layouts import Interleaved, Transposed
from lmzoo.hf.llama import BIASES, KINDS
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.names import both, outside
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Weights
from lmzoo.hf.windows import windows

_LAYER, _EXPERTS = "model.layers.{i}.", "model.layers.{i}.mlp.experts."
WEIGHTS: Weights = {
    **outside(LLAMA, ".1.inner."),
    "blocks.{i}.0.inner.sinks": f"{_LAYER}self_attn.sinks",
    **both("blocks.{i}.1.inner.router", f"{_LAYER}mlp.router"),
    "blocks.{i}.1.inner.up": Interleaved(Transposed(f"{_EXPERTS}gate_up_proj")),
    "blocks.{i}.1.inner.up_bias": Interleaved(f"{_EXPERTS}gate_up_proj_bias"),
    "blocks.{i}.1.inner.down": Transposed(f"{_EXPERTS}down_proj"),
    "blocks.{i}.1.inner.down_bias": f"{_EXPERTS}down_proj_bias",
}
_YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


KEYS: dict[str, Key] = {
    **ATTENTION,
    "num_key_value_heads": To("n_kv_heads", 8),
    "rms_norm_eps": To("norm_eps", 1e-5),
    "head_dim": To("head_dim", 64),
    "hidden_act": SWIGLU,  # not read by transformers
    "num_local_experts": To("n_experts", 128),
    "num_experts_per_tok": To("top_k", 4),
    "swiglu_limit": To("clamp", 7.0, null=False),
    "swiglu_alpha": Only(1.702),
    "attention_bias": To("attention_bias", default=True, values=BIASES),
    "tie_word_embeddings": To("tie_embeddings", default=False),
    **unused("output_router_logits", "router_aux_loss_coef", "initial_context_length"),
}
GPT_OSS = Architecture(
    model_type="gpt_oss",
    classes=("GptOssForCausalLM",),
    family="mixtral",
    weights=WEIGHTS,
    keys=KEYS,
    together=(rope(150000.0, default=_YARN), windows(KINDS, 128, lambda layer, _: layer % 2 == 0)),
    aliases={"num_experts": "num_local_experts", "experts_per_token": "num_experts_per_tok"},
    fixed={"sinks": True},
)
