"""Layouts and names that llama.cpp's converter gives the tensors of a checkpoint of transformers.

The layouts are written down here again; the names come from the map of the package `gguf`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import gguf
import torch
from torch import Tensor

from tests.hf.references import CASES

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
