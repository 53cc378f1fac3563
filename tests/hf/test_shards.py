"""Tests of the files of a checkpoint: shards and their index, names without a prefix, buffers, and pickled files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lmzoo.errors import CheckpointError
from lmzoo.hf.architecture import Config
from lmzoo.hf.architectures import ARCHITECTURES
from lmzoo.hf.shards import Shards, open_files
from lmzoo.storage.safetensors import write_tensors

GPT2 = ARCHITECTURES["gpt2"]
WEIGHTS = GPT2.weights_for(Config())


def write_shards(folder: Path, places: dict[str, Any], files: dict[str, dict[str, torch.Tensor]]) -> Path:
    """Writes an index with these places, and the files."""
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    for name, tensors in files.items():
        write_tensors(tensors, folder / name)
    return folder


def test_shards_are_one_mapping(tmp_path: Path) -> None:
    a, b = torch.randn(3), torch.randn(2, 2).half()
    folder = write_shards(
        tmp_path, {"lm_head.weight": "1.safetensors", "transformer.b": "2.safetensors"},
        {"1.safetensors": {"lm_head.weight": a}, "2.safetensors": {"transformer.b": b}},
    )  # fmt: skip
    shards = Shards(open_files(folder), GPT2, WEIGHTS)
    assert {*shards} == {"lm_head.weight", "transformer.b"}
    assert torch.equal(shards["lm_head.weight"], a)
    assert torch.equal(shards["transformer.b"], b)
    assert shards.adjacent(["lm_head.weight", "transformer.b"]) is None, "they are in two files"
    meta = shards.on_meta()["transformer.b"]
    assert (meta.shape, meta.dtype, meta.device.type) == (b.shape, b.dtype, "meta")


def test_shards_add_the_prefix_that_a_base_model_lacks_and_drop_buffers(tmp_path: Path) -> None:
    tensors = {"wte.weight": torch.ones(2), "h.0.attn.bias": torch.ones(1), "lm_head.weight": torch.ones(2)}
    write_tensors(tensors, tmp_path / "model.safetensors")
    assert {*Shards(open_files(tmp_path), GPT2, WEIGHTS)} == {"transformer.wte.weight", "lm_head.weight"}
    beyond = replace(GPT2, buffers=("h.{n_layers}.*",))
    assert "transformer.h.0.attn.bias" in Shards(open_files(tmp_path), beyond, WEIGHTS, 1)
    assert "transformer.h.0.attn.bias" not in Shards(open_files(tmp_path), beyond, WEIGHTS, 0)


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        *((kind, "model.layers.2.eh_proj.weight") for kind in ("deepseek_v3", "glm4_moe", "glm4_moe_lite")),
        ("ernie4_5_moe", "model.mtp_linear_proj.0.weight"),
        ("qwen3_next", "mtp.fc.weight"),
    ],
)
def test_shards_leave_out_multi_token_prediction(tmp_path: Path, model_type: str, name: str) -> None:
    kept = {f"model.layers.{layer}.input_layernorm.weight" for layer in (1, 20)}
    write_tensors({each: torch.ones(2) for each in (*kept, name)}, tmp_path / "model.safetensors")
    assert {*Shards(open_files(tmp_path), ARCHITECTURES[model_type], {}, n_layers=2)} == kept


@pytest.mark.parametrize("prefix", ["model.", "backbone.", ""])
def test_shards_replace_the_prefix_of_other_versions(tmp_path: Path, prefix: str) -> None:
    architecture = ARCHITECTURES["nemotron_h"]
    names = (f"{prefix}layers.0.mixer.D", "lm_head.weight")
    write_tensors({name: torch.ones(2) for name in names}, tmp_path / "model.safetensors")
    found = Shards(open_files(tmp_path), architecture, architecture.weights_for(Config()))
    assert {*found} == {"model.layers.0.mixer.D", "lm_head.weight"}


@pytest.mark.parametrize(
    ("places", "error"),
    [
        ({"a": "../1.safetensors"}, r"index\.json: a file='\.\./1\.safetensors' must be NAME\.safetensors in the same"),
        ({"a": "/etc/passwd"}, r"index\.json: a file='/etc/passwd' must be NAME\.safetensors"),
        ({"a": 3}, r"index\.json: a file=3 must be NAME\.safetensors"),
        ({}, r"index\.json: must hold weight_map"),
        ([], r"index\.json: must hold weight_map"),
        ({"a": "1.safetensors", "b": "3.safetensors"}, r"3\.safetensors: cannot be read: No such file"),
        ({"a": "1.safetensors", "b": "1.safetensors"}, r"1\.safetensors: lacks the tensor 'b', which the index lists"),
        ({"a": "2.safetensors", "b": "2.safetensors"}, r"2\.safetensors: lacks the tensor 'a', which the index lists"),
        ({"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}, r"2\.safetensors: lacks the tensor 'c'"),
    ],
)
def test_open_files_refuses_an_index_that_does_not_fit(tmp_path: Path, places: Any, error: str) -> None:
    files = {"1.safetensors": {"a": torch.ones(1)}, "2.safetensors": {"b": torch.ones(1)}}
    with pytest.raises(CheckpointError, match=error):
        open_files(write_shards(tmp_path, places, files))


def test_open_files_refuses_a_tensor_in_two_shards(tmp_path: Path) -> None:
    ones = torch.ones(1)
    files = {"1.safetensors": {"a": ones}, "2.safetensors": {"a": ones, "b": ones}}
    folder = write_shards(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"}, files)
    with pytest.raises(CheckpointError, match=r"2\.safetensors: holds 'a', the index says 1\.safetensors$"):
        open_files(folder)
    write_shards(tmp_path, {"a": "1.safetensors", "c": "2.safetensors"}, {})
    (tmp_path / "2.safetensors").unlink()
    write_shards(tmp_path, {"a": "1.safetensors", "c": "2.safetensors"}, {"2.safetensors": {"b": ones, "c": ones}})
    with pytest.raises(CheckpointError, match=r"2\.safetensors: holds 'b', which the index does not list$"):
        open_files(folder)


def test_open_files_refuses_pickles_and_says_how_to_convert_them(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: is a pickled file.+docs/hugging-face\.md"):
        open_files(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"has neither model\.safetensors nor model\.safetensors\.index\.json$"):
        open_files(tmp_path)
