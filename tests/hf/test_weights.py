"""Tests of weight-name maps on small tensors: names, tied heads, and errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lmzoo.errors import CheckpointError
from lmzoo.hf.layouts import Rows
from lmzoo.hf.weights import Head, MissingTensorError, Reader, Weights, convert

CONFIG: dict[str, Any] = {"n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "n_experts": 3, "tie_embeddings": False}


def numbered(*shape: int, start: int = 0) -> Tensor:
    """A tensor whose elements are all different."""
    return torch.arange(start, start + torch.Size(shape).numel()).view(shape)


def test_convert_renames_in_each_layer() -> None:
    source = {"emb": numbered(3, 2), "h.0.ln": numbered(2), "h.1.ln": numbered(2, start=5)}
    ours = convert(source, {"tokens": "emb", "blocks.{i}.norm": "h.{i}.ln"}, CONFIG)
    assert list(ours) == ["tokens", "blocks.0.norm", "blocks.1.norm"]
    assert ours["tokens"] is source["emb"]
    assert ours["blocks.1.norm"] is source["h.1.ln"]


def test_reader_names_a_missing_tensor_and_ours() -> None:
    weights: Weights = {"blocks.{i}.qkv": Rows(("h.{i}.q", "h.{i}.k"))}
    source = {name: numbered(2) for name in ("h.0.q", "h.0.k", "h.1.q")}
    read = Reader(source, CONFIG)
    assert read.ours(weights, "blocks.0.qkv").shape == (4,)
    with pytest.raises(MissingTensorError, match=r"^blocks\.1\.qkv: the checkpoint has no h\.1\.k$"):
        read.ours(weights, "blocks.1.qkv")
    with pytest.raises(CheckpointError, match=r"^blocks\.0\.out: no tensor of the checkpoint is known for it$"):
        read.ours(weights, "blocks.0.out")


def test_convert_names_tensors_that_nothing_uses() -> None:
    source = {name: numbered(2) for name in ("a", "h.2.x", "h.3.x")}
    with pytest.raises(CheckpointError, match=r"^the checkpoint holds h\.2\.x, h\.3\.x, which the model has no place"):
        convert(source, {"ours": "a"}, CONFIG)
    source |= {f"more.{n}": numbered(2) for n in range(5)}
    with pytest.raises(CheckpointError, match=r"holds h\.2\.x, h\.3\.x, more\.0 and 4 more, which"):
        convert(source, {"ours": "a"}, CONFIG)


def test_head_is_read_unless_it_is_tied() -> None:
    weights: Weights = {"tokens": "emb", "head": Head("lm_head", tokens="emb")}
    embedding, other = numbered(3, 2), numbered(3, 2, start=1)
    tied = {**CONFIG, "tie_embeddings": True}
    assert convert({"emb": embedding, "lm_head": other}, weights, CONFIG)["head"] is other
    assert list(convert({"emb": embedding}, weights, CONFIG)) == ["tokens"]
    for source in ({"emb": embedding}, {"emb": embedding, "lm_head": embedding.clone()}):
        assert list(convert(source, weights, tied)) == ["tokens"]
    with pytest.raises(CheckpointError, match=r"^tie_embeddings=True, but in the checkpoint lm_head differs from emb$"):
        convert({"emb": embedding, "lm_head": other}, weights, tied)
