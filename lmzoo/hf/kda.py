"""Weight names of KDA in transformers' KimiLinearForCausalLM with linear-attention and dense layers alone."""

from __future__ import annotations

from lmzoo.hf.layouts import Rows, Squeezed
from lmzoo.hf.names import frame, gated
from lmzoo.hf.weights import Weights


def by_head(name: str) -> Squeezed:
    """Returns the layout of a number for each head (H,) that is stored as (1, 1, H, 1)."""
    return Squeezed(Squeezed(Squeezed(name, axis=3), axis=1), axis=0)


WEIGHTS: Weights = {
    **frame("model.embed_tokens", "model.norm"),
    "blocks.{i}.0.before.weight": "model.layers.{i}.input_layernorm.weight",
    "blocks.{i}.0.inner.qkv.weight": Rows(
        (
            "model.layers.{i}.self_attn.q_proj.weight",
            "model.layers.{i}.self_attn.k_proj.weight",
            "model.layers.{i}.self_attn.v_proj.weight",
        ),
    ),
    "blocks.{i}.0.inner.conv.weight": Squeezed("model.layers.{i}.self_attn.conv1d.weight", axis=1),
    "blocks.{i}.0.inner.beta.weight": "model.layers.{i}.self_attn.b_proj.weight",
    "blocks.{i}.0.inner.decay_down.weight": "model.layers.{i}.self_attn.forget_gate.f_a_proj.weight",
    "blocks.{i}.0.inner.decay_up.weight": "model.layers.{i}.self_attn.forget_gate.f_b_proj.weight",
    "blocks.{i}.0.inner.A_log": by_head("model.layers.{i}.self_attn.forget_gate.A_log"),
    "blocks.{i}.0.inner.dt_bias": "model.layers.{i}.self_attn.forget_gate.dt_bias",
    "blocks.{i}.0.inner.gate_down.weight": "model.layers.{i}.self_attn.g_a_proj.weight",
    "blocks.{i}.0.inner.gate_up.weight": "model.layers.{i}.self_attn.g_b_proj.weight",
    "blocks.{i}.0.inner.norm.weight": "model.layers.{i}.self_attn.o_norm.weight",
    "blocks.{i}.0.inner.out.weight": "model.layers.{i}.self_attn.o_proj.weight",
    "blocks.{i}.1.before.weight": "model.layers.{i}.post_attention_layernorm.weight",
    **gated("blocks.{i}.1.inner.", "model.layers.{i}.mlp."),
}
