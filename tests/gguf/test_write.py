"""Tests that a GGUF file holds the tensors of transformers, by the names and in the layouts of llama.cpp's converter.

The names come from the map of the package `gguf`, the layouts are written down here again; and transformers' own loader
of GGUF files gives the same logits.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import lmzoo
from lmzoo.gguf.forms import FORMS
from lmzoo.gguf.mamba_forms import SCALES
from lmzoo.gguf.write import write_gguf
from tests.backbones.against_transformers import perturb, random_tokens
from tests.gguf.cases import MODELS
from tests.gguf.converter import expected
from tests.gguf.files import GPT_OSS, llama, read_back
from tests.hf.references import CASES, logits_of, reference, saved

# transformers' loader reads these; it does not read all sizes of the others.
LOADED = ("llama", "mistral", "qwen2", "stablelm", "bloom", "mamba")


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
