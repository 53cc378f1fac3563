"""Weight names of DeepSeek-V2 and V3 in transformers' DeepseekV2ForCausalLM and DeepseekV3ForCausalLM.

Both rotate pairs of neighbors. `V3_HALVES` is for a V3 with `rope_interleave=False`, which rotates halves, as lmzoo.
"""

from __future__ import annotations

from lmzoo.hf.weights import Head, Neighbors, Rows, Weights

_OURS, _THEIRS = "blocks.{i}.0.inner.", "model.layers.{i}.self_attn."
_MLP, _THEIR_MLP = "blocks.{i}.1.inner.", "model.layers.{i}.mlp."


def _gate_and_up(module: str) -> Rows:
    return Rows((f"{module}gate_proj.weight", f"{module}up_proj.weight"))


_COMMON: Weights = {
    "tokens.weight": "model.embed_tokens.weight",
    "blocks.{i}.0.before.weight": "model.layers.{i}.input_layernorm.weight",
    f"{_OURS}kv_down.weight": Neighbors(f"{_THEIRS}kv_a_proj_with_mqa.weight", "rope_dim"),
    f"{_OURS}kv_norm.weight": f"{_THEIRS}kv_a_layernorm.weight",
    f"{_OURS}kv_up.weight": f"{_THEIRS}kv_b_proj.weight",
    f"{_OURS}out.weight": f"{_THEIRS}o_proj.weight",
    "blocks.{i}.1.before.weight": "model.layers.{i}.post_attention_layernorm.weight",
    f"{_MLP}up.weight": _gate_and_up(_THEIR_MLP),
    f"{_MLP}down.weight": f"{_THEIR_MLP}down_proj.weight",
    f"{_MLP}router.weight": f"{_THEIR_MLP}gate.weight",
    f"{_MLP}up": f"{_THEIR_MLP}experts.gate_up_proj",
    f"{_MLP}down": f"{_THEIR_MLP}experts.down_proj",
    f"{_MLP}shared.up.weight": _gate_and_up(f"{_THEIR_MLP}shared_experts."),
    f"{_MLP}shared.down.weight": f"{_THEIR_MLP}shared_experts.down_proj.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": Head("lm_head.weight", tokens="model.embed_tokens.weight"),
}

V2_LITE: Weights = {  # q_rank is None
    **_COMMON,
    f"{_OURS}q.weight": Neighbors(f"{_THEIRS}q_proj.weight", "rope_dim", "n_heads"),
}
V2: Weights = {
    **_COMMON,
    f"{_OURS}q_down.weight": f"{_THEIRS}q_a_proj.weight",
    f"{_OURS}q_norm.weight": f"{_THEIRS}q_a_layernorm.weight",
    f"{_OURS}q.weight": Neighbors(f"{_THEIRS}q_b_proj.weight", "rope_dim", "n_heads"),
}
V3: Weights = {**V2, f"{_MLP}choice_bias": f"{_THEIR_MLP}gate.e_score_correction_bias"}
V3_HALVES: Weights = {name: source.part if isinstance(source, Neighbors) else source for name, source in V3.items()}
