"""Models of transformers, each with its architecture in GGUF and the layouts of its tensors there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.gguf.converter import (
    Rule,
    by_group,
    by_kind,
    conv1d,
    falcon_h1,
    gpt_oss,
    granite_layers,
    jamba,
    kimi,
    next_layers,
    permuted,
    plus_one,
    same,
    short_convolution,
    state_space,
    state_space_2,
)
from tests.hf.references import CASES, GEMMA, LLAMA

PLAIN_ROPE = {"rope_type": "default", "rope_theta": 100.0}
PLAIN_LFM2 = {"routed_scaling_factor": 1.0, "tie_word_embeddings": True}
ONE_GROUP = {"n_group": 1, "topk_group": 1, "rms_norm_eps": 1e-6}
PLAIN: dict[str, Any] = {**LLAMA, "max_position_embeddings": 64}
WIDE: dict[str, Any] = {**PLAIN, "sliding_window": None}
SMALL_GEMMA: dict[str, Any] = {**GEMMA, "query_pre_attn_scalar": 12, "max_position_embeddings": 64}
SMALL_MOE: dict[str, Any] = {**PLAIN, "num_experts": 4, "num_experts_per_tok": 2}


def keys_of(case: str, **changes: Any) -> dict[str, Any]:
    return {**CASES[case].keys, **changes}


# The model type, the architecture in GGUF, the keys of the config, and the rule of the layouts.
MODELS: dict[str, tuple[str, str, Mapping[str, Any], Rule]] = {
    "llama": ("llama", "llama", PLAIN, permuted),
    "llama biases": ("llama", "llama", {**PLAIN, "attention_bias": True, "head_dim": 12}, permuted),
    "llama tied": ("llama", "llama", {**PLAIN, "tie_word_embeddings": True}, permuted),
    "mistral": ("mistral", "llama", WIDE, permuted),
    "qwen2": ("qwen2", "qwen2", WIDE, same),
    "qwen3": ("qwen3", "qwen3", {**WIDE, "head_dim": 12}, same),
    "smollm3": ("smollm3", "smollm3", {**WIDE, "num_hidden_layers": 5}, permuted),
    "mixtral": ("mixtral", "llama", {**WIDE, "num_local_experts": 4}, permuted),
    "qwen3_moe": (
        "qwen3_moe",
        "qwen3moe",
        {**SMALL_MOE, "head_dim": 12, "norm_topk_prob": True, "moe_intermediate_size": 24},
        same,
    ),
    "olmoe": ("olmoe", "olmoe", SMALL_MOE, same),
    "olmo2": ("olmo2", "olmo2", keys_of("olmo2"), same),
    "granite": ("granite", "granite", keys_of("granite"), permuted),
    "gemma2": ("gemma2", "gemma2", {**SMALL_GEMMA, "rope_theta": 1e4}, plus_one),
    "gemma3": ("gemma3_text", "gemma3", {**SMALL_GEMMA, "num_hidden_layers": 7}, plus_one),
    "arcee": ("arcee", "arcee", PLAIN, permuted),
    "hunyuan": ("hunyuan_v1_dense", "hunyuan-dense", {**PLAIN, "head_dim": 12}, same),
    "gemma": ("gemma", "gemma", {**PLAIN, "head_dim": 12, "tie_word_embeddings": True}, plus_one),
    "deepseek_v3": ("deepseek_v3", "deepseek2", keys_of("deepseek_v3", **ONE_GROUP), same),
    "deepseek_v2": ("deepseek_v2", "deepseek2", keys_of("deepseek_v2", q_lora_rank=None, **ONE_GROUP), same),
    "dots1": ("dots1", "dots1", keys_of("dots1", **ONE_GROUP), same),
    "qwen2_moe": ("qwen2_moe", "qwen2moe", keys_of("qwen2_moe"), same),
    "granitemoe": ("granitemoe", "granitemoe", keys_of("granitemoe"), permuted),
    "granitemoeshared": ("granitemoeshared", "granitemoe", keys_of("granitemoeshared"), permuted),
    "gpt_bigcode": ("gpt_bigcode", "starcoder", keys_of("gpt_bigcode"), same),
    "cohere2": ("cohere2", "cohere2", keys_of("cohere2", num_hidden_layers=5, layer_types=None), same),
    "olmo": ("olmo", "olmo", keys_of("olmo"), permuted),
    "nemotron": ("nemotron", "nemotron", keys_of("nemotron"), plus_one),
    "lfm2": ("lfm2", "lfm2", keys_of("lfm2"), short_convolution),
    "lfm2_moe": ("lfm2_moe", "lfm2moe", keys_of("lfm2_moe", **PLAIN_LFM2), short_convolution),
    "qwen3_next": ("qwen3_next", "qwen3next", keys_of("qwen3_next", linear_value_head_dim=6), next_layers),
    "kimi_linear": (
        "kimi_linear",
        "kimi-linear",
        keys_of("kimi_linear", linear_num_heads=4, num_expert_group=1, topk_group=1, rms_norm_eps=1e-6),
        kimi,
    ),
    "glm4_moe": ("glm4_moe", "glm4moe", keys_of("glm4_moe", **ONE_GROUP), same),
    "glm4_moe biases": (
        "glm4_moe",
        "glm4moe",
        keys_of("glm4_moe", attention_bias=True, use_qk_norm=False, **ONE_GROUP),
        same,
    ),
    "minimax_m2": ("minimax_m2", "minimax-m2", keys_of("minimax_m2"), same),
    "hunyuan_moe": ("hunyuan_v1_moe", "hunyuan-moe", keys_of("hunyuan_v1_moe"), same),
    "afmoe": ("afmoe", "afmoe", keys_of("afmoe", global_attn_every_n_layers=4, num_hidden_layers=5), same),
    "gpt_oss": (
        "gpt_oss",
        "gpt-oss",
        keys_of("gpt_oss", swiglu_limit=7.0, rope_parameters=PLAIN_ROPE),
        gpt_oss,
    ),
    "exaone4": (
        "exaone4",
        "exaone4",
        keys_of("exaone4", sliding_window=None, layer_types=2 * ["full_attention"]),
        same,
    ),
    "phi3": ("phi3", "phi3", keys_of("phi3", sliding_window=None, **CASES["phi3"].variants["longrope"]), same),
    "phi3 partial": (
        "phi3",
        "phi3",
        keys_of("phi3", sliding_window=None, **CASES["phi3"].variants["partial"]),
        same,
    ),
    "falcon": ("falcon", "falcon", keys_of("falcon"), by_group),
    "jamba": ("jamba", "jamba", keys_of("jamba"), jamba),
    "jamba dense": ("jamba", "jamba", keys_of("jamba", num_experts=1), jamba),
    "granite hybrid": ("granitemoehybrid", "granitehybrid", keys_of("granitemoehybrid"), granite_layers),
    "granite hybrid dense": (
        "granitemoehybrid",
        "granitehybrid",
        keys_of("granitemoehybrid", num_local_experts=0, position_embedding_type="rope"),
        granite_layers,
    ),
    "falcon_h1": ("falcon_h1", "falcon-h1", keys_of("falcon_h1"), falcon_h1),
    "falcon_h1 norm": (
        "falcon_h1",
        "falcon-h1",
        keys_of("falcon_h1", mamba_rms_norm=True, mamba_norm_before_gate=False),
        falcon_h1,
    ),
    "gpt2": ("gpt2", "gpt2", keys_of("gpt2", activation_function="gelu_new"), conv1d),
    "gpt_neox": ("gpt_neox", "gptneox", keys_of("gpt_neox"), by_kind),
    "starcoder2": ("starcoder2", "starcoder2", keys_of("starcoder2", sliding_window=None), same),
    "stablelm": ("stablelm", "stablelm", keys_of("stablelm"), same),
    "phi": ("phi", "phi2", keys_of("phi"), same),
    "cohere": ("cohere", "command-r", keys_of("cohere"), same),
    "bloom": ("bloom", "bloom", keys_of("bloom", n_head=4), by_kind),
    "mpt": ("mpt", "mpt", keys_of("mpt"), same),
    "mamba": ("mamba", "mamba", keys_of("mamba"), state_space),
    "falcon_mamba": ("falcon_mamba", "mamba", keys_of("falcon_mamba", mixer_rms_eps=0.02), state_space),
    "mamba2": ("mamba2", "mamba2", keys_of("mamba2", n_groups=2), state_space_2),
}
