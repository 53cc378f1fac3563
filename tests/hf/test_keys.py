"""Tests that no key of a config.json is ignored in silence: each key of each config of transformers is changed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import lmzoo
from lmzoo import configs, registry
from lmzoo.errors import CheckpointError, LmzooError
from lmzoo.hf.architecture import Config, Unread, Unused
from lmzoo.hf.architectures import ARCHITECTURES
from lmzoo.hf.fitting import differences
from lmzoo.hf.keys import WITHOUT_EFFECT, unread, unused, without
from lmzoo.model import ModelConfig
from tests.backbones.against_transformers import random_tokens
from tests.cases import each_case
from tests.hf.references import CASES, V, case_keys, logits_of, reference, saved


def config_of(folder: Path) -> dict[str, Any]:
    """Returns the config.json of a checkpoint."""
    return json.loads((folder / "config.json").read_text())


def changes(value: Any) -> Iterator[Any]:
    """Yields other values for a key."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, 2 * value)
    elif isinstance(value, float):
        yield 1.5 * value + 0.1
    elif isinstance(value, str):
        yield from ("relu", "other")
    elif isinstance(value, list):
        yield from ([*reversed(value)], value[:-1], [*value[1:], "other"])
    elif isinstance(value, dict):
        yield from ({**value, key: other} for key in value for other in changes(value[key]))
        yield {**value, "partial_rotary_factor": 0.5}
    else:
        yield from (True, 3, 1.5, "other")


def their_logits(folder: Path, state: dict[str, torch.Tensor], idx_BT: torch.Tensor) -> torch.Tensor | None:
    """Returns the logits of transformers with the config in a folder, None if it refuses the config or the weights."""
    try:
        config = AutoConfig.from_pretrained(folder)
        theirs = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        theirs.load_state_dict(state)
        return logits_of(theirs.eval(), idx_BT)
    except Exception:  # errors of any kind
        return None


@pytest.mark.parametrize("model_type", CASES)
def test_keys_are_honored_or_refused_or_without_effect(model_type: str, tmp_path: Path) -> None:
    theirs = reference(model_type, **case_keys(model_type))
    folder, state, idx_BT = saved(theirs, tmp_path), theirs.state_dict(), random_tokens(V, 2, 20)
    config, honored = config_of(folder), 0
    for key in config:
        if model_type != "llama" and key in WITHOUT_EFFECT:
            continue  # they are the same for all: changed in one model type
        for value in changes(config[key]):
            changed = {**config, key: value}
            (folder / "config.json").write_text(json.dumps(changed))
            try:
                with torch.no_grad():
                    ours = lmzoo.load_model(folder)(idx_BT).logits
            except CheckpointError:
                continue
            expected = their_logits(folder, state, idx_BT)
            if expected is not None:
                honored += 1
                worst = (ours - expected).abs().max() / expected.abs().max()
                assert worst < 1e-3, f"{key}={value!r} is ignored: the logits differ by {worst:.2g}"
                if isinstance(value, int):  # another number is needed only where the first was refused
                    break
    assert honored


# Keys in published config.json files that transformers does not read.
HUB: dict[str, dict[str, Any]] = {
    "llama": {  # SmolLM2, Vicuna
        "is_llama_config": True,
        "rope_interleaved": False,
        "max_sequence_length": 2048,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
        "unsloth_fixed": True,
    },
    "qwen2": {"use_mrope": False, "dual_chunk_attention_config": {"chunk_size": 262144, "local_size": 8192}},
    "gpt2": {"n_special": 0, "predict_special_tokens": True, "output_past": True, "_num_labels": 1},
    "opt": {"learned_embeddings": True, "scale_embeddings": False},
    "falcon": {"ff_factor": 4},
    "cwm": {"attention_bias": False},
    "persimmon": {"num_key_value_heads": 4},
    "nemotron_h": {"norm_eps": 1e-5, "time_step_rank": 256, "rope_theta": 10000, "partial_rotary_factor": 1.0},
    "minimax": {"postnorm": True, "shared_intermediate_size": 0, "shared_moe_mode": "sigmoid"},
    "minimax_m2": {
        "rotary_dim": 6,
        "attn_type_list": [1, 1, 1],
        "sliding_window": None,
        "scoring_func": "sigmoid",
        "qk_norm_type": "per_layer",
        "use_qk_norm": True,
        "use_routing_bias": True,
        "layernorm_full_attention_beta": 1.0,
        "layernorm_linear_attention_beta": 1.0,
        "layernorm_mlp_beta": 1.0,
        "mlp_intermediate_size": 8192,
        "shared_intermediate_size": 0,
        "shared_moe_mode": "sigmoid",
        "use_mtp": True,
        "num_mtp_modules": 3,
        "mtp_transformer_layers": 1,
    },
    "ernie4_5_moe": {
        "moe_gate": "topk",
        "moe_use_aux_free": True,
        "moe_capacity": [64, 64, 64],
        "num_nextn_predict_layers": 1,
    },
    "dots1": {"moe_layer_freq": 1, "scoring_func": "noaux_tc", "use_sliding_window": False},
    "xlstm": {
        "add_embedding_dropout": False,
        "add_forward_backend_padding": False,
        "add_post_blocks_norm": True,
        "add_post_norm": False,
        "add_qk_norm": False,
        "cell_norm_eps": 1e-6,
        "force_bos_token_insert": True,
        "head_dim": 16,
        "igate_bias_init_range": -10.0,
        "mlstm_round_up_to_multiple_of": 64,
    },
    "hunyuan_v1_dense": {
        "attention_head_dim": 12,
        "add_classification_head": False,
        "anyres_pooling_size": 2,
        "cla_share_factor": 2,
        "class_num": 0,
        "dense_list": [32, 0],
        "norm_type": "rms",
        "org_vocab_size": 61,
        "pad_id": 3,
        "pool_type": "last",
        "use_cla": False,
    },
    "afmoe": {
        "load_balance_coeff": 0.0005,
        "n_group": 1,
        "num_expert_groups": 1,
        "num_limited_groups": 1,
        "route_norm": True,
        "score_func": "sigmoid",
        "topk_group": 1,
        "use_grouped_mm": True,
    },
    "phi3": {"lm_head_bias": False, "full_attn_mod": 1, "interpolate_factor": 1, "mlp_bias": False},
    "exaone4": {"reorder_qk_norm": True, "max_window_layers": 4},
    "gpt_neox": {"attention_probs_dropout_prob": 0, "hidden_dropout_prob": 0},
    "starcoder2": {
        "mlp_type": "default",
        "norm_type": "layer_norm",
        "activation_function": "gelu",
        "layer_norm_epsilon": 1e-5,
        "rms_norm_eps": 1e-5,
        "scale_attn_weights": True,
        "attention_softmax_in_fp32": True,
        "scale_attention_softmax_in_fp32": True,
    },
    "mpt": {"tokenizer_name": "EleutherAI/gpt-neox-20b"},
    "cohere": {"model_max_length": 131072},
    "cohere2": {
        "order_of_interleaved_layers": "local_attn_first",
        "position_embedding_type": "rope_gptj",
        "rotary_pct": 1.0,
        "use_gated_activation": True,
        "use_parallel_block": True,
        "use_qk_norm": False,
        "use_embedding_sharing": True,
        "use_parallel_embedding": True,
        "layer_switch": 4,
        "cache_implementation": "hybrid",
    },
    "gemma2": {"sliding_window_size": 5},
    "apertus": {"qk_norm": True, "post_norm": False},
    "gpt_bigcode": {
        "inference_runner": 0,
        "validate_runner_input": True,
        "max_batch_size": None,
        "pad_key_length": True,
    },
    "gpt_neo": {"summary_type": "cls_index", "embed_dropout": 0, "classifier_dropout": 0.1},
    "hunyuan_v1_moe": {
        "moe_intermediate_size": 3 * [40],
        "num_shared_expert": 3 * [1],
        "attention_head_dim": 12,
        "norm_topk_prob": True,
        "use_cla": False,
        "cla_share_factor": 2,
        "moe_drop_tokens": False,
        "norm_type": "rms",
        "mask_init_id": 12,
    },
    "granitemoehybrid": {"normalization_function": "rmsnorm", "init_method": "mup"},
    "mamba": {
        "d_model": 24,
        "n_layer": 2,
        "d_inner": 48,
        "intermediate_size": 48,
        "rms_norm": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 8,
        "ssm_cfg": {},
    },
    "mamba2": {
        "rms_norm": True,
        "norm_before_gate": True,
        "intermediate_size": 64,
        "time_step_scale": 1.0,
        "time_step_init_scheme": "random",
    },
    "recurrent_gemma": {
        "_block_types": ["recurrent", "recurrent", "attention"],
        "embeddings_scale_by_sqrt_dim": True,
    },
    "qwen3_5_text": {
        "mlp_only_layers": [],
        "mtp_use_dedicated_embeddings": False,
        "mtp_num_hidden_layers": 1,
        "output_gate_type": "swish",
    },
    "zamba2": {
        "use_shared_mlp_adapter": True,
        "time_step_limit": None,
        "ffn_hidden_size": 40,
        "gated_linear_unit": True,
    },
    "bamba": {"attn_rotary_emb": 64, "use_mamba_kernels": True},
    "falcon_h1": {"mlp_expansion_factor": 8},
    "jamba": {"mamba_inner_layernorms": True, "n_ctx": 262144},
}


@each_case("model_type, keys", HUB.items())
def test_keys_of_the_hub_are_accepted_with_their_value_alone(model_type: str, keys: dict[str, Any]) -> None:
    architecture, plain = ARCHITECTURES[model_type], Config(case_keys(model_type))
    expected = architecture.settings(plain, WITHOUT_EFFECT)
    assert architecture.settings(Config({**plain, **keys}), WITHOUT_EFFECT) == expected
    for key, meaning in architecture.keys.items():
        if isinstance(meaning, Unread):
            assert not meaning.inverse(key, {})
            with pytest.raises(CheckpointError, match=f"^{key}='another' must be "):
                architecture.settings(Config({**plain, key: "another"}), WITHOUT_EFFECT)


@pytest.mark.parametrize("model_type", CASES)
def test_keys_that_are_missing_have_the_defaults_of_transformers(model_type: str) -> None:
    """A config.json of the hub often lacks keys. Without a default, a missing key is refused."""
    architecture, keys = ARCHITECTURES[model_type], case_keys(model_type)
    whole = AutoConfig.for_model(model_type, **keys).to_dict()
    known = {*architecture.keys, *(key for together in architecture.together for key in together.keys)}
    for missing in known & {*whole}:
        left = {key: value for key, value in whole.items() if key != missing}
        try:
            ours = architecture.settings(Config(left), WITHOUT_EFFECT)
        except CheckpointError:
            continue
        filled = AutoConfig.for_model(**left).to_dict()
        expected = architecture.settings(Config(filled), WITHOUT_EFFECT)
        derived = {name for name, value in ours.items() if value is None}  # from other sizes, by both
        assert {**ours, **{name: expected[name] for name in derived}} == expected, missing


@pytest.mark.parametrize("model_type", CASES)
def test_keys_mean_what_transformers_reads(model_type: str) -> None:
    """Each key is set to null, and each key that is missing to a number: transformers may ignore both.

    The settings must be those for the config that transformers makes of it, with all its defaults.
    """
    architecture, keys = ARCHITECTURES[model_type], {"model_type": model_type, **case_keys(model_type)}
    config_class = registry.model_class(architecture.family).config_class

    def built(config: dict[str, Any]) -> ModelConfig:
        return configs.build(config_class, architecture.settings(Config(deepcopy(config)), WITHOUT_EFFECT))

    known = {*architecture.keys, *(key for together in architecture.together for key in together.keys)}
    for key in sorted(known):
        for value in (None,) if key in keys else (None, 5):
            changed = {**keys, key: value}
            try:
                filled = AutoConfig.for_model(**deepcopy(changed)).to_dict()
            except Exception:  # errors of any kind
                continue
            try:
                ours = built(changed)
            except LmzooError:
                continue
            theirs = built({name: value for name, value in filled.items() if name != "architectures"})
            assert differences(ours, theirs) == [], f"{key}={value}"


READ_OTHERWISE: list[tuple[str, dict[str, Any], dict[str, Any] | str]] = [
    (
        "hunyuan_v1_moe",
        {"moe_intermediate_size": [40, 41]},
        r"moe_intermediate_size=\[40, 41\] must be 40 in all",
    ),
    ("hunyuan_v1_moe", {"moe_topk": [1, 2, 2]}, r"moe_topk=\[1, 2, 2\] must be the same in all layers"),
    ("gpt_neo", {"attention_layers": 3 * ["global"]}, "attention_layers=.* must agree with attention_types"),
    ("ministral3", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, ".* must have llama_4_scaling_beta"),
    ("exaone_moe", {"sliding_window": None}, "sliding_window=None must be a number"),
    ("mamba", {"intermediate_size": 72}, {"expand": 3}),
    ("falcon_mamba", {"intermediate_size": 40}, "intermediate_size=40 must be a multiple of hidden_size=24"),
    ("bloom", {"slow_but_exact": True, "pretraining_tp": 2}, "slow_but_exact=True must be false"),
    ("bloom", {"slow_but_exact": False, "pretraining_tp": 2}, {"norm_eps": 0.02}),
    ("gemma2", {"sliding_window_pattern": 3}, "sliding_window_pattern=3 must be 2"),
    ("gemma3_text", {"sliding_window": None}, "sliding_window=None must be a number"),
    ("glm4_moe_lite", {"first_k_dense_replace": 2}, "first_k_dense_replace=2 must be 1"),
    ("glm4_moe_lite", {"head_dim": 8}, "head_dim=8 must be equal to qk_rope_head_dim=6"),
    ("minimax_m2", {"rope_parameters": None, "rotary_dim": 6}, {"rotary_fraction": 0.5, "rope_theta": 5e6}),
    ("minimax_m2", {"rope_parameters": None, "rotary_dim": 6, "partial_rotary_factor": 1}, {"rotary_fraction": 1.0}),
    ("minimax_m2", {"attn_type_list": [1, 0, 1]}, r"attn_type_list=\[1, 0, 1\] must have 1 for all layers"),
    ("persimmon", {"num_key_value_heads": 2}, "num_key_value_heads=2 must be num_attention_heads=4"),
    ("hunyuan_v1_dense", {"attention_head_dim": 8}, "attention_head_dim=8 must be 12"),
    ("zamba2", {"ffn_hidden_size": 41}, "ffn_hidden_size=41 must be 40, which follows from other keys"),
    ("youtu", {"head_dim": 8}, "head_dim=8 must be qk_rope_head_dim=6"),
    ("deepseek_v3", {"head_dim": 6, "hidden_size": 36}, {"rope_theta": 100.0}),
    ("cwm", {"rope_parameters": None, "rope_theta": 5.0}, {"rope_theta": 1e6}),
    ("gpt_neox", {"rope_theta": 5.0}, "rope_theta=5.0 must be 100.0"),
    ("gpt_neox", {"rope_theta": 100, "partial_rotary_factor": 0.25}, "partial_rotary_factor=0.25 must be 0.5"),
    ("gpt_neox", {"rope_theta": 100, "partial_rotary_factor": 0.5}, {"rope_theta": 100.0, "rotary_fraction": 0.5}),
    ("olmo_hybrid", {"rope_theta": 5.0}, {"pattern": "delta nope"}),
    ("olmo_hybrid", {"rope_parameters": None, "rope_theta": None}, {"pattern": "delta nope"}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}, {}),
    ("qwen3_moe", {"use_sliding_window": True, "sliding_window": None}, {"window": None}),
    (
        "smollm3",
        {"layer_types": 3 * ["sliding_attention"], "sliding_window": 5},
        "layer_types=.+ has sliding_attention",
    ),
    ("exaone4", {"sliding_window_pattern": "LLLG", "layer_types": 2 * ["full_attention"]}, {"pattern": "nope nope"}),
    (
        "phi3",
        {
            "rope_scaling": {"type": "su", "short_factor": 4 * [1.5], "long_factor": 4 * [2]},
            "original_max_position_embeddings": 8,
        },
        {"rope_scaling": "longrope original=8 factor=2.0 short=1.5,1.5,1.5,1.5 long=2,2,2,2"},
    ),
    *(
        (model_type, {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, key: value}}, f"{key}={value} must be ")
        for model_type in ("gemma3_text", "olmo3")
        for key, value in (("truncate", False), ("partial_rotary_factor", 0.5))
    ),
]


@each_case("model_type, keys, expected", READ_OTHERWISE)
def test_keys_that_transformers_reads_otherwise_than_one_might(
    model_type: str, keys: dict[str, Any], expected: dict[str, Any] | str
) -> None:
    config = Config({**case_keys(model_type), **keys})
    if isinstance(expected, str):
        with pytest.raises(CheckpointError, match=f"^{expected}"):
            ARCHITECTURES[model_type].settings(config, WITHOUT_EFFECT)
        return
    found = ARCHITECTURES[model_type].settings(config, WITHOUT_EFFECT)
    assert {name: found[name] for name in expected} == expected
    assert expected or "window" not in found


LONG_LISTS: list[tuple[str, dict[str, Any]]] = [
    ("bamba", {"attn_layer_indices": True}),
    ("lfm2", {"layer_types": None, "full_attn_idxs": True}),
    ("qwen3_next", {"layer_types": None, "mlp_only_layers": True}),
    ("flint", {"layer_types": None, "mlp_only_layers": True}),
    ("kimi_linear", {"layer_types": None, "linear_attn_config": {"full_attn_layers": True, "kda_layers": True}}),
]


@each_case("model_type, keys", LONG_LISTS)
def test_lists_of_layers_are_searched_once(model_type: str, keys: dict[str, Any]) -> None:
    """A short file can hold many numbers and ask for many layers: their product is no time that a reader has."""

    def filled(value: Any) -> Any:
        numbers = [-1] * 100_000
        return numbers if value is True else dict.fromkeys(value, numbers) if isinstance(value, dict) else value

    many = {key: filled(value) for key, value in keys.items()}
    config = Config({**case_keys(model_type), "num_hidden_layers": 10_000, "mlp_layer_types": None, **many})
    start = time.process_time()
    with suppress(CheckpointError):
        ARCHITECTURES[model_type].settings(config, WITHOUT_EFFECT)
    assert time.process_time() - start < 1


def test_tables_of_keys_say_what_each_key_means() -> None:
    assert unused("a", "b") == {"a": Unused(), "b": Unused()}
    assert unread(True, "a", "b") == {"a": Unread(True), "b": Unread(True)}
    assert without({"a": 1, "b": 2, "c": 3}, "c", "a") == {"b": 2}
