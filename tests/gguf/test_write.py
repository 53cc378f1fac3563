"""Tests that a GGUF file holds the tensors of transformers, by the names and in the layouts of llama.cpp's converter.

The names come from the map of the package `gguf`, the layouts are written down here again; and transformers' own loader
of GGUF files gives the same logits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import lmzoo
from lmzoo.errors import CheckpointError, LmzooError
from lmzoo.gguf.forms import FORMS
from lmzoo.gguf.mamba_forms import SCALES
from lmzoo.gguf.write import converted, defaults_of, form_of, settings_of, write_gguf
from tests.backbones.against_transformers import perturb, random_tokens
from tests.hf.references import CASES, GEMMA, LLAMA, logits_of, reference, saved

Rule = Callable[[str, Tensor], Tensor]  # of an HF name and its tensor: the tensor in the file
HEADS, KV = 4, 2


def same(_name: str, tensor: Tensor) -> Tensor:
    return tensor


def permuted(name: str, tensor: Tensor) -> Tensor:
    """Llama: halves of a head become pairs of neighbors."""
    part = name.rpartition("self_attn.")[2].partition(".")[0]
    if part not in ("q_proj", "k_proj"):
        return tensor
    heads = HEADS if part == "q_proj" else KV
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def conv1d(name: str, tensor: Tensor) -> Tensor:
    """GPT-2 stores (in, out)."""
    return tensor.T if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else tensor


def by_kind(name: str, tensor: Tensor) -> Tensor:
    """GPT-NeoX and BLOOM order q, k and v by head."""
    if "query_key_value" not in name:
        return tensor
    return tensor.unflatten(0, (HEADS, 3, -1)).transpose(0, 1).flatten(0, 2)


def plus_one(name: str, tensor: Tensor) -> Tensor:
    return tensor + 1 if name.endswith("norm.weight") else tensor


def state_space(name: str, tensor: Tensor) -> Tensor:
    tensor = -tensor.exp() if name.endswith("A_log") else tensor
    return tensor.squeeze(1) if name.endswith("conv1d.weight") else tensor


def state_space_2(name: str, tensor: Tensor) -> Tensor:
    tensor = state_space(name, tensor)
    if name.endswith(("A_log", "mixer.D")):
        return tensor[:, None]
    return tensor.reshape(2, -1) if name.endswith("mixer.norm.weight") else tensor


def short_convolution(name: str, tensor: Tensor) -> Tensor:
    return tensor.squeeze(1) if name.endswith("conv.conv.weight") else tensor


def next_layers(name: str, tensor: Tensor) -> Tensor:
    """Qwen3-Next: norms around 1, but that of the delta rule."""
    tensor = tensor + 1 if name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight") else tensor
    return state_space(name, tensor)


def kimi(name: str, tensor: Tensor) -> Tensor:
    """Kimi Linear: filters and decays have four axes."""
    tensor = tensor[None] if name.endswith("conv1d.weight") else tensor
    return -tensor.exp() if name.endswith("A_log") else tensor


def split_by_head(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Divides the fused projection of Qwen3-Next's delta rule, of 2 heads of keys, into q, k, v and z."""
    q, k, v, z = tensor.unflatten(0, (2, -1)).split([6, 6, 12, 12], dim=1)
    return torch.cat([part.flatten(0, 1) for part in (q, k, v)]), z.flatten(0, 1)


def jamba(name: str, tensor: Tensor) -> Tensor:
    return tensor if name.endswith("layernorm.weight") else state_space(name, tensor)


def granite_layers(name: str, tensor: Tensor) -> Tensor:
    """Granite 4.0: attention as in Llama, and Mamba-2."""
    return state_space_2(name.replace(".mamba.", ".mixer."), permuted(name, tensor))


def falcon_h1(name: str, tensor: Tensor) -> Tensor:
    """Falcon-H1: the factors of its features become part of the matrices, of 5 parts with 24, 24, 10, 10 and 4 rows."""
    keys = CASES["falcon_h1"].keys
    factors = {
        "embed_tokens.weight": keys["embedding_multiplier"],
        "lm_head.weight": keys["lm_head_multiplier"],
        "q_proj.weight": keys["attention_in_multiplier"],
        "k_proj.weight": keys["attention_in_multiplier"] * keys["key_multiplier"],
        "v_proj.weight": keys["attention_in_multiplier"],
        "o_proj.weight": keys["attention_out_multiplier"],
        "out_proj.weight": keys["ssm_out_multiplier"],
        "gate_proj.weight": keys["mlp_multipliers"][0],
        "down_proj.weight": keys["mlp_multipliers"][1],
    }
    if name.endswith("in_proj.weight"):
        rows = torch.tensor([keys["ssm_in_multiplier"] * factor for factor in keys["ssm_multipliers"]])
        return tensor * rows.repeat_interleave(torch.tensor([24, 24, 10, 10, 4]))[:, None]
    factor = next((factor for end, factor in factors.items() if name.endswith(f".{end}") or name == end), 1.0)
    return state_space_2(name.replace(".mamba.", ".mixer."), tensor * factor)


def gpt_oss(name: str, tensor: Tensor) -> Tensor:
    """gpt-oss: matrices (in, out), gate and up in turns."""
    tensor = tensor.mT if name.endswith(("gate_up_proj", "experts.down_proj")) else tensor
    gates = "gate_up_proj" in name
    return torch.cat([tensor[:, ::2], tensor[:, 1::2]], dim=1) if gates else tensor


def by_group(name: str, tensor: Tensor) -> Tensor:
    """Falcon orders queries, keys and values by groups of heads; here there is one."""
    if "query_key_value" not in name:
        return tensor
    q, k, v = tensor.unflatten(0, (1, HEADS + 2, -1)).split([HEADS, 1, 1], dim=1)
    return torch.cat([part.flatten(0, 2) for part in (q, k, v)])


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
# transformers' loader reads these; it does not read all sizes of the others.
LOADED = ("llama", "mistral", "qwen2", "stablelm", "bloom", "mamba")


RENAMED = (
    (".forget_gate.", "."),
    (".block_sparse_moe.router.weight", ".mlp.gate.weight"),
    (".block_sparse_moe.experts.", ".mlp.experts."),
    (".shared_mlp.output_linear.", ".mlp.shared_experts.down_proj."),
    (".shared_mlp.input_linear.", ".mlp.shared_experts.input_linear."),
)


def expected(tensors: Mapping[str, Tensor], arch: str, n_layers: int, rule: Rule) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint of transformers as llama.cpp's converter would write them."""
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(number, n_layers)
    found = {}
    dense = not any("router" in name for name in tensors)
    for name, tensor in tensors.items():
        changed = rule(name, tensor)
        name = name.replace(".dt_bias", ".dt_proj.bias").removeprefix("transformer." if arch == "bloom" else "")
        for old, new in RENAMED:
            name = name.replace(old, new)
        name = name.replace(".mlp.shared_experts.", ".mlp.") if arch == "granitehybrid" and dense else name
        parts = {name: changed}
        if name.endswith("experts.gate_up_proj"):
            place = name.removesuffix("gate_up_proj")
            gate, up = changed.chunk(2, dim=1)
            parts = {f"{place}gate_proj.weight": gate, f"{place}up_proj.weight": up}
        elif name.endswith("experts.down_proj"):
            parts = {f"{name}.weight": changed}
        elif name.endswith("experts.gate_up_proj_bias"):
            place, (gate, up) = name.removesuffix("gate_up_proj_bias"), changed.chunk(2, dim=1)
            parts = {f"{place}gate_proj.bias": gate, f"{place}up_proj.bias": up}
        elif name.endswith("experts.down_proj_bias"):
            parts = {name.replace("_bias", ".bias"): changed}
        elif name.endswith(".sinks"):
            parts = {f"{name}.weight": changed}
        elif name.endswith(".input_linear.weight"):  # gate and up projection of Granite
            place, (gate, up) = name.removesuffix("input_linear.weight"), changed.chunk(2, dim=changed.ndim - 2)
            parts = {f"{place}gate_proj.weight": gate, f"{place}up_proj.weight": up}
        elif name.endswith("kv_b_proj.weight"):
            keys, values = changed.unflatten(0, (HEADS, -1)).split([10, 8], dim=1)
            parts = {name.replace("kv_b", "k_b"): keys.mT, name.replace("kv_b", "v_b"): values}
        elif name.endswith(("e_score_correction_bias", "expert_bias")):
            parts = {name: changed} if arch in ("lfm2moe", "afmoe") else {name.replace("_bias", ".bias"): changed}
        elif name.endswith("self_attn.conv1d.weight"):  # of queries, keys and values
            pieces = zip("qkv", changed.chunk(3, dim=1), strict=True)
            parts = {name.replace("conv1d", f"{part}_conv1d"): piece for part, piece in pieces}
        elif name.endswith("in_proj_qkvz.weight"):
            qkv, z = split_by_head(changed)
            parts = {name.replace("qkvz", "qkv"): qkv, name.replace("qkvz", "z"): z}
        for part, value in parts.items():
            place = names.get_name(part, try_suffixes=(".weight", ".bias"))
            assert place is not None, part
            place += ".bias" if place.endswith("exp_probs_b") else ""
            found[place] = value
    return found


def read_back(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the tensors of a file, and its metadata."""
    reader = gguf.GGUFReader(path)
    tensors = {t.name: gguf.dequantize(t.data, t.tensor_type).reshape(tuple(reversed(t.shape))) for t in reader.tensors}
    return tensors, {name: field.contents() for name, field in reader.fields.items()}


@pytest.mark.parametrize("case", MODELS)
def test_write_gguf_holds_what_llama_cpp_converts(case: str, tmp_path: Path) -> None:
    model_type, arch, keys, rule = MODELS[case]
    theirs = reference(model_type, **keys)
    ours = lmzoo.load_model(saved(theirs, tmp_path / "hf"))
    written = write_gguf(ours, tmp_path / "model.gguf")
    found, facts = read_back(tmp_path / "model.gguf")
    heads = {name for name in theirs.state_dict() if name.startswith("lm_head.") and theirs.config.tie_word_embeddings}
    tensors = {name: tensor for name, tensor in theirs.state_dict().items() if name not in heads}
    wanted = expected(tensors, arch, ours.config.n_layers, rule)
    if case == "phi3":
        longrope = CASES["phi3"].variants["longrope"]["rope_parameters"]
        wanted |= {
            f"rope_factors_{kind}.weight": torch.tensor(longrope[f"{kind}_factor"]) for kind in ("long", "short")
        }
        factor = (1 + np.log(16 / 10) / np.log(10)) ** 0.5
        assert facts["phi3.rope.scaling.attn_factor"] == pytest.approx(factor)
        assert facts["phi3.rope.scaling.original_context_length"] == 10
    if case in ("gpt_neox", "stablelm"):
        wanted.setdefault("output.weight", wanted["token_embd.weight"])
    assert (written.arch, written.tensors, facts["general.architecture"]) == (arch, len(wanted), arch)
    assert {*found} == {*wanted}
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(found[name], tensor.numpy(), err_msg=name)
    assert facts[f"{arch}.block_count"] == ours.config.n_layers
    assert facts[f"{arch}.vocab_size"] == ours.config.vocab_size
    if case in LOADED:
        back = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32).eval()
        idx = random_tokens(ours.config.vocab_size, 2, 12)
        with torch.no_grad():
            torch.testing.assert_close(logits_of(back, idx), ours(idx).logits, atol=2e-5, rtol=0)


def test_write_gguf_covers_every_form() -> None:
    assert {arch for _, arch, _, _ in MODELS.values()} | {"rwkv7"} == {form.arch for form in FORMS}


def test_write_gguf_of_rwkv7(tmp_path: Path) -> None:
    """No model of transformers: the tensors of lmzoo, by the names of llama.cpp; two have another shape."""
    model = lmzoo.create_model("rwkv7", vocab_size=61, n_layers=2, d_model=64)
    write_gguf(model, tmp_path / "model.gguf")
    found, facts = read_back(tmp_path / "model.gguf")
    ours = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    time, channel = "blocks.1.0.inner.", "blocks.1.1.inner."
    pairs = {
        "time_mix_w0": f"{time}decay.bias",
        "time_mix_w1": f"{time}decay.down.weight",
        "time_mix_w2": f"{time}decay.up.weight",
        "time_mix_a0": f"{time}rate.bias",
        "time_mix_v2": f"{time}residual.up.weight",
        "time_mix_g1": f"{time}gate.down.weight",
        "time_mix_output": f"{time}out.weight",
        "time_mix_ln": f"{time}norm.weight",
        "channel_mix_value": f"{channel}down.weight",
        "attn_norm_2": "blocks.1.1.before.weight",
    }
    for theirs, name in pairs.items():
        np.testing.assert_array_equal(found[f"blk.1.{theirs}.weight"], ours[name], err_msg=name)
    np.testing.assert_array_equal(found["blk.1.time_mix_lerp_fused.weight"][:, 0, 0], ours[f"{time}shift.mix"])
    np.testing.assert_array_equal(found["blk.1.channel_mix_lerp_k.weight"], ours[f"{channel}shift.mix"][0])
    np.testing.assert_array_equal(found["blk.0.time_mix_v1.weight"], ours["blocks.0.0.inner.rate.down.weight"])
    assert {"token_embd_norm.weight", "output.weight", "output_norm.bias"} <= {*found}
    assert (facts["rwkv7.wkv.head_size"], facts["rwkv7.attention.decay_lora_rank"]) == (32, 16)


def llama(**settings: Any) -> lmzoo.LanguageModel:
    sizes = {"vocab_size": 61, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "context_length": 64}
    return lmzoo.create_model("llama", **{**sizes, **settings})


def test_write_gguf_keys_of_llama(tmp_path: Path) -> None:
    write_gguf(llama(rope_theta=5e5, norm_eps=1e-6, rope_scaling="yarn factor=4 original=32"), tmp_path / "a.gguf")
    _, facts = read_back(tmp_path / "a.gguf")
    wanted = {
        "context_length": 64,
        "embedding_length": 32,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 8,
        "rope.dimension_count": 8,
        "rope.freq_base": 5e5,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 32,
    }
    assert {name: facts[f"llama.{name}"] for name in wanted} == wanted
    assert facts["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert (facts["tokenizer.ggml.model"], facts["general.file_type"]) == ("none", 0)


def test_write_gguf_factors_of_rotary_frequencies(tmp_path: Path) -> None:
    """llama.cpp divides each frequency by a tensor: those that Llama 3's rule slows by the whole factor have it."""
    scaling = "llama3 factor=8 original=16 low=1 high=4"
    write_gguf(llama(rope_scaling=scaling, head_dim=16, rope_theta=100.0), tmp_path / "a.gguf")
    factors = read_back(tmp_path / "a.gguf")[0]["rope_freqs.weight"]
    assert factors.shape == (8,)
    assert factors[0] == 1.0 or factors[0] < 8.0
    assert factors[-1] == 8.0
    assert (np.diff(factors) >= 0).all()


@pytest.mark.parametrize(("dtype", "number", "exact"), [("float16", 1, 2e-3), ("bfloat16", 32, 1e-2)])
def test_write_gguf_in_16_bits_keeps_norms_in_32(dtype: str, number: int, exact: float, tmp_path: Path) -> None:
    model = llama()
    write_gguf(model, tmp_path / "a.gguf", dtype=dtype)
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    experts = lmzoo.create_model("mixtral", vocab_size=61, d_model=32, n_layers=2, n_heads=4, window=9, **GPT_OSS)
    write_gguf(experts, tmp_path / "experts.gguf", dtype=dtype)
    others = {each.name: each.tensor_type.name for each in gguf.GGUFReader(tmp_path / "experts.gguf").tensors}
    assert {others[f"blk.0.ffn_{part}_exps.bias"] for part in ("gate", "up", "down")} == {"F32"}
    assert {kinds["blk.0.attn_q.weight"], kinds["token_embd.weight"]} == {"F16" if dtype == "float16" else "BF16"}
    assert {kinds["blk.0.attn_norm.weight"], kinds["output_norm.weight"]} == {"F32"}
    found, facts = read_back(tmp_path / "a.gguf")
    assert facts["general.file_type"] == number
    wanted = model.tokens.weight.detach().numpy()  # pyrefly: ignore[missing-attribute]
    np.testing.assert_allclose(found["token_embd.weight"], wanted, rtol=exact, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 8}, "GGUF has no form of this llama model: as llama, window=8 must be None"),
        ({"gate": True}, "gate=True must be False"),
        ({"qk_norm": True, "attention_bias": "all"}, "must be"),
        ({"pattern": "rope nope"}, "pattern='rope nope' must"),
        ({"rotary_fraction": 0.5, "attention_bias": "all"}, "rotary_fraction=0.5 must be 1.0"),
        ({"qk_norm": True, "rope_scaling": "llama3 factor=2 original=8"}, "must be none or linear or yarn"),
        ({"rope_scaling": "yarn factor=2 original=8 attention=3"}, "must have the usual attention=1.06931"),
    ],
)
def test_write_gguf_refuses_what_llama_cpp_would_compute_differently(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_gguf(llama(**settings), tmp_path / "a.gguf")
    assert [*tmp_path.iterdir()] == []


def test_form_of_refuses_a_setting_that_no_form_mentions() -> None:
    """A family gets a new setting: its effect would be missing in the file."""
    model = llama()
    settings, defaults = {**settings_of(model), "new": 2}, {**defaults_of(model), "new": 1}
    assert form_of("llama", {**settings, "new": 1}, defaults).arch == "llama"
    with pytest.raises(CheckpointError, match="as llama, new=2 must be 1"):
        form_of("llama", settings, defaults)


def test_converted_refuses_a_tensor_without_a_place() -> None:
    model = llama()
    settings = settings_of(model)
    form = form_of("llama", settings, defaults_of(model))
    tensors = {name: source for name, source in form.tensors.items() if name != "output_norm.weight"}
    with pytest.raises(CheckpointError, match=r"holds norm\.weight, which the model has no place for"):
        converted(model, replace(form, tensors=tensors), settings)


def test_write_gguf_refuses_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bigram = lmzoo.create_model("bigram", vocab_size=61)
    with pytest.raises(CheckpointError, match=r"bigram has no architecture in GGUF; these families have one: alibi, "):
        write_gguf(bigram, tmp_path / "a.gguf")
    with pytest.raises(CheckpointError, match="dtype='int8' must be one of float32"):
        write_gguf(llama(), tmp_path / "a.gguf", dtype="int8")
    with pytest.raises(CheckpointError, match=r"missing/a.gguf: cannot be written: No such file or directory$"):
        write_gguf(llama(), tmp_path / "missing" / "a.gguf")
    (tmp_path / "a.gguf").write_text("")
    with pytest.raises(CheckpointError, match=r"a\.gguf: exists: it is left as it is$"):
        write_gguf(llama(), tmp_path / "a.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(CheckpointError, match=r"need the package gguf: pip install 'lmzoo\[gguf\]'"):
        write_gguf(llama(), tmp_path / "b.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


def test_write_gguf_refuses_numbers_that_the_file_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"context_length=8589934592 must be below 2\^32 in a GGUF file"):
        write_gguf(llama(context_length=1 << 33), tmp_path / "a.gguf")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "model=int must be a LanguageModel"),
        ({"path": 3}, "path=3 must be a path"),
        ({"tokenizer": {"a": 1}}, r"tokenizer=\{'a': 1\} must be a tokenizer"),
        ({"dtype": [1]}, r"dtype=\[1\] must be one of float32"),
    ],
)
def test_write_gguf_names_a_wrong_argument(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(LmzooError, match=message):
        write_gguf(**{"model": llama(), "path": tmp_path / "a.gguf", **arguments})
    assert [*tmp_path.iterdir()] == []


def test_write_gguf_keys_of_deepseek(tmp_path: Path) -> None:
    """llama.cpp computes with the cached features as one head of keys, and has the widths of heads beside it."""
    sizes = {"vocab_size": 61, "d_model": 32, "n_layers": 3, "n_heads": 4, "context_length": 64, "latent_eps": 1e-6}
    latent = {"q_rank": 12, "kv_rank": 16, "nope_dim": 10, "rope_dim": 6, "v_dim": 8, "routed_scale": 2.5, "n_dense": 1}
    write_gguf(lmzoo.create_model("deepseek", **sizes, **latent), tmp_path / "a.gguf")
    _, facts = read_back(tmp_path / "a.gguf")
    wanted = {
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": 12,
        "attention.kv_lora_rank": 16,
        "attention.key_length": 22,
        "attention.value_length": 16,
        "attention.key_length_mla": 16,
        "attention.value_length_mla": 8,
        "rope.dimension_count": 6,
        "leading_dense_block_count": 1,
        "expert_weights_scale": 2.5,
        "expert_weights_norm": True,
        "expert_gating_func": 2,
        "expert_shared_count": 1,
    }
    assert {name: facts[f"deepseek2.{name}"] for name in wanted} == wanted


def test_write_gguf_of_lfm2_names_the_layers_with_attention(tmp_path: Path) -> None:
    model = lmzoo.create_model(
        "lfm2", vocab_size=61, d_model=32, n_layers=3, pattern="conv attention conv", n_kv_heads=2
    )
    write_gguf(model, tmp_path / "a.gguf")
    _, facts = read_back(tmp_path / "a.gguf")
    assert (facts["lfm2.attention.head_count_kv"], facts["lfm2.shortconv.l_cache"]) == ([0, 2, 0], 3)


GPT_OSS: dict[str, Any] = {"pattern": "rope full", "sinks": True, "clamp": 7.0, "attention_bias": "all"}
AFMOE: dict[str, Any] = {"pattern": "window*3 grouped_nope", "qk_norm": "head", "gate": True, "post_norms": True}


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("deepseek", {"latent_eps": 1e-5}, "as deepseek2, latent_eps=1e-05 must be norm_eps=1e-06"),
        ("deepseek", {"n_groups": 2}, r"n_groups=2 must be 1"),
        ("deepseek", {"pattern": "grouped rope"}, "pattern='grouped rope' must be "),
        ("mixtral", {"d_shared": 12, "attention_bias": "qkv"}, "normalize=True must be False"),
        ("gptj", {"attention_bias": "all", "head_dim": 12}, "as phi2, head_dim=12 must be 8"),
        ("gpt_neo", {"pattern": "full"}, "as starcoder, n_kv_heads=4 must be 1"),
        ("lfm2", {"feed_forward": "experts mlp"}, "as lfm2moe, feed_forward='experts mlp' must have mlp in its first"),
        ("qwen3_next", {"pattern": "delta attention"}, "as qwen3next, feed_forward='mlp' must be experts"),
        ("qwen3_next", {"pattern": "delta attention", "value_dim": 9, "feed_forward": "experts"}, "must be key_dim=8"),
        ("deepseek", {"pattern": "kda nope", "kda_heads": 3, "latent_eps": 1e-6}, "kda_heads=3 must be n_heads=4"),
        ("granite", {"post_norms": True, "n_experts": 4}, "post_norms=True must be False"),
        ("granite", {"pattern": "mamba2 rope", "dt_min": 0.1}, "as granitehybrid, dt_min=0.1 must be 0.0"),
        ("granite", {"pattern": "latent"}, "pattern='latent' must"),
        (
            "hybrid",
            {"pattern": "mamba attention", "select_norm": True, "normalize": False},
            "must have only mamba or nope",
        ),
        (
            "falcon_h1",
            {"ssm_norm": "before", "tie_embeddings": False},
            "as falcon-h1, ssm_norm='before' must be 'none'",
        ),
        ("olmo2", {"qk_norm": "head", "n_layers": 64}, "as exaone4, n_layers=64 must be another number"),
        ("mixtral", GPT_OSS, "as gpt-oss, window must be a number"),
        ("mixtral", {**GPT_OSS, "window": 9, "pattern": "full rope"}, "pattern='full rope' must be rope"),
        (
            "deepseek",
            {**AFMOE, "embedding_scale": 2.0},
            r"embedding_scale=2.0 must be sqrt\(d_model\) = 5.65",
        ),
        ("llama", {"rotary_fraction": 0.5, "window": 9}, "as phi3, window=9 must be None"),
    ],
)
def test_write_gguf_refuses_settings_of_other_families(
    family: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    sizes = {"vocab_size": 61, "d_model": 32, "n_layers": 2, "n_heads": 4}
    with pytest.raises(CheckpointError, match=message):
        write_gguf(lmzoo.create_model(family, **{**sizes, **settings}), tmp_path / "a.gguf")


HYBRID_KEYS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "qwen3next": (
        "qwen3_next",
        {"n_layers": 6, "pattern": "delta*2 attention", "feed_forward": "experts", "delta_heads": 4, "key_dim": 6}
        | {"delta_key_heads": 2, "d_expert": 12, "d_shared": 20, "head_dim": 8, "rotary_fraction": 0.5},
        {"full_attention_interval": 3, "ssm.group_count": 2, "ssm.time_step_rank": 4, "ssm.inner_size": 24}
        | {"ssm.state_size": 6, "expert_shared_feed_forward_length": 20, "rope.dimension_count": 4},
    ),
    "kimi-linear": (
        "deepseek",
        {"n_layers": 3, "pattern": "kda*2 nope", "latent_eps": 1e-6, "kda_dim": 6, "n_dense": 1, "kv_rank": 12},
        {"attention.head_count_kv": [0, 0, 1], "kda.head_dim": 6, "leading_dense_block_count": 1},
    ),
    "jamba": (
        "hybrid",
        {"n_layers": 4, "pattern": "mamba nope+experts", "select_norm": True, "normalize": False, "n_kv_heads": 2}
        | {"dt_rank": 3, "d_state": 5},
        {"attention.head_count_kv": [0, 2, 0, 2], "ssm.time_step_rank": 3, "ssm.inner_size": 64, "ssm.state_size": 5}
        | {"expert_count": 8, "expert_used_count": 2},
    ),
    "granitehybrid": (
        "granite",
        {"n_layers": 3, "pattern": "mamba2*2 nope", "n_kv_heads": 2, "ssm_head_dim": 4, "ssm_groups": 2},
        {"attention.head_count_kv": [0, 0, 2], "ssm.time_step_rank": 16, "ssm.group_count": 2, "expert_count": 0}
        | {"rope.scaling.finetuned": False},
    ),
    "falcon-h1": (
        "falcon_h1",
        {"n_layers": 2, "n_kv_heads": 2, "head_dim": 6, "d_ssm": 24, "ssm_heads": 2, "tie_embeddings": False},
        {"attention.head_count_kv": 2, "ssm.time_step_rank": 2, "ssm.inner_size": 24, "attention.key_length": 6},
    ),
    "gpt-oss": (
        "mixtral",
        {"n_layers": 4, "pattern": "rope full", "window": 9, "sinks": True, "clamp": 7.0, "attention_bias": "all"}
        | {"d_ff": 24},
        {"attention.sliding_window": 9, "expert_feed_forward_length": 24, "expert_count": 8},
    ),
    "afmoe": (
        "deepseek",
        {"n_layers": 4, "pattern": "window*3 grouped_nope", "window": 9, "gate": True, "post_norms": True}
        | {"qk_norm": "head", "embedding_scale": 32**0.5, "routed_scale": 2.5},
        {"attention.sliding_window": 9, "expert_shared_count": 1, "expert_weights_scale": 2.5}
        | {"leading_dense_block_count": 1, "expert_gating_func": 2},
    ),
    "lfm2moe": (
        "lfm2",
        {
            "n_layers": 3,
            "pattern": "conv attention",
            "feed_forward": "mlp experts experts",
            "d_expert": 12,
            "n_kv_heads": 2,
        },
        {"attention.head_count_kv": [0, 2, 0], "leading_dense_block_count": 1, "expert_gating_func": 2},
    ),
}


@pytest.mark.parametrize("arch", HYBRID_KEYS)
def test_write_gguf_keys_of_layers_of_two_kinds(arch: str, tmp_path: Path) -> None:
    family, settings, wanted = HYBRID_KEYS[arch]
    model = lmzoo.create_model(family, vocab_size=61, d_model=32, n_heads=4, **settings)
    assert write_gguf(model, tmp_path / "a.gguf").arch == arch
    _, facts = read_back(tmp_path / "a.gguf")
    assert {name: facts[f"{arch}.{name}"] for name in wanted} == wanted


def test_write_gguf_makes_the_factors_of_falcon_h1_part_of_its_matrices(tmp_path: Path) -> None:
    """llama.cpp has no factors: a model with none of them has the same logits with the matrices of the file."""
    sizes = {"vocab_size": 61, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "rope_theta": 100.0}
    sizes |= {"d_ssm": 24, "ssm_heads": 4, "ssm_groups": 2, "d_state": 5, "tie_embeddings": False}
    model = lmzoo.create_model("falcon_h1", **sizes).eval()
    perturb(model)
    write_gguf(model, tmp_path / "model.gguf")
    found = {name: torch.from_numpy(np.array(array)) for name, array in read_back(tmp_path / "model.gguf")[0].items()}
    plain = lmzoo.create_model("falcon_h1", **sizes, **dict.fromkeys(SCALES, 1.0)).eval()
    state = {**model.state_dict(), "tokens.weight": found["token_embd.weight"]}
    state["head.inner.weight"] = found["output.weight"]
    for layer in range(2):
        theirs, ours = f"blk.{layer}.", f"blocks.{layer}."
        qkv = [found[f"{theirs}attn_{part}.weight"] for part in "qkv"]
        state[f"{ours}0.inner.0.0.qkv.weight"] = torch.cat(qkv)
        state[f"{ours}0.inner.0.0.out.weight"] = found[f"{theirs}attn_output.weight"]
        state[f"{ours}0.inner.1.0.in_proj.weight"] = found[f"{theirs}ssm_in.weight"]
        state[f"{ours}0.inner.1.0.out_proj.weight"] = found[f"{theirs}ssm_out.weight"]
        state[f"{ours}1.inner.up.weight"] = torch.cat([found[f"{theirs}ffn_{part}.weight"] for part in ("gate", "up")])
        state[f"{ours}1.inner.down.weight"] = found[f"{theirs}ffn_down.weight"]
    plain.load_state_dict(state)
    idx_BT = random_tokens(61, 2, 12)
    with torch.no_grad():
        torch.testing.assert_close(plain(idx_BT).logits, model(idx_BT).logits, atol=2e-5, rtol=1e-5)
