"""Tests that weight-name maps are read backwards: each layout has an inverse, and each tensor one place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lmzoo.errors import CheckpointError
from lmzoo.hf.layouts import (
    Either,
    Interleaved,
    Layout,
    Neighbors,
    PartByHead,
    PerGroup,
    PerHead,
    Rows,
    Skipped,
    Squeezed,
    Stacked,
    Transposed,
)
from lmzoo.hf.weights import Head, Weights, convert
from lmzoo.hf.writer import unconvert

CONFIG: dict[str, Any] = {
    "n_layers": 2,
    "n_heads": 2,
    "n_kv_heads": 1,
    "n_experts": 3,
    "rope_dim": 4,
    "tie_embeddings": False,
}


def numbered(*shape: int, start: int = 0) -> Tensor:
    """A tensor whose elements are all different."""
    return torch.arange(start, start + torch.Size(shape).numel()).view(shape)


def written(weights: Weights, **ours: Tensor) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint for ours."""
    return unconvert(ours, weights, CONFIG)


@pytest.mark.parametrize(
    ("layout", "source"),
    [
        ("a", {"a": numbered(2)}),
        (Rows(("a", "b")), {"a": numbered(2, 3), "b": numbered(2, 3, start=6)}),
        (
            Rows(("q", "k", "v"), shares=("n_heads", "n_kv_heads", 1)),
            {"q": numbered(4, 3), "k": numbered(2, 3, start=12), "v": numbered(2, 3, start=18)},
        ),
        (Transposed("a"), {"a": numbered(2, 3)}),
        (Stacked("a{e}", "n_experts"), {f"a{e}": numbered(2, start=2 * e) for e in range(3)}),
        (PerHead("a"), {"a": numbered(12, 2)}),
        (PerHead("a"), {"a": numbered(12)}),
        (Neighbors("a", "rope_dim", "n_heads"), {"a": numbered(14, 2)}),
        (Neighbors("a", "rope_dim", first=True), {"a": numbered(7)}),
        (Squeezed("a", axis=1), {"a": numbered(4, 1, 3)}),
        (Interleaved("a"), {"a": numbered(3, 4, 2)}),
        (PerGroup("a"), {"a": numbered(12, 2)}),
        (PerGroup("a", groups="n_heads"), {"a": numbered(12)}),
        (
            Stacked(Rows((Transposed("g{e}"), Transposed("u{e}"))), "n_experts"),
            {f"{part}{e}": numbered(3, 2, start=10 * e + n) for e in range(3) for n, part in enumerate("gu")},
        ),
        (Either(("a", "b")), {"a": numbered(3)}),
    ],
)
def test_unconvert_is_the_inverse_of_each_layout(layout: Layout, source: dict[str, Tensor]) -> None:
    again = written({"w": layout}, **convert(source, {"w": layout}, CONFIG))
    assert again.keys() == source.keys()
    for name, tensor in source.items():
        assert torch.equal(again[name], tensor), name


def test_unconvert_writes_zeros_where_nothing_is_read() -> None:
    assert written({"w": Skipped("a", rows=2)}, w=numbered(2, 2, start=1))["a"].tolist() == [
        [0, 0],
        [0, 0],
        [1, 2],
        [3, 4],
    ]


def test_unconvert_renames_in_each_layer_and_writes_a_head_that_is_not_tied() -> None:
    weights: Weights = {"tokens": "emb", "blocks.{i}.norm": "h.{i}.ln", "head": Head("lm_head", tokens="emb")}
    ours = {"tokens": numbered(3), "blocks.0.norm": numbered(2), "blocks.1.norm": numbered(2), "head": numbered(3)}
    found = unconvert(ours, weights, CONFIG)
    assert list(found) == ["emb", "h.0.ln", "h.1.ln", "lm_head"]
    assert found["h.1.ln"] is ours["blocks.1.norm"]
    del ours["head"]
    assert "lm_head" not in unconvert(ours, weights, CONFIG)


def test_unconvert_joins_the_parts_of_heads() -> None:
    """Two heads with rows of two parts: q0 g0 q1 g1."""
    weights: Weights = {
        "q": Rows((PartByHead("qg", 2, 0, (2, 1)), "k"), shares=(4, 1)),
        "g": PartByHead("qg", 2, 1, (2, 1)),
    }
    source = {"qg": numbered(6, 2), "k": numbered(1, 2, start=50)}
    ours = convert(source, weights, CONFIG)
    assert ours["g"].tolist() == [[4, 5], [10, 11]]
    found = unconvert(ours, weights, CONFIG)
    assert torch.equal(found["qg"], source["qg"])
    with pytest.raises(CheckpointError, match=r"^only a part of qg is known$"):
        unconvert({"q": ours["q"]}, weights, CONFIG)


def test_unconvert_chooses_the_source_whose_module_the_layer_has() -> None:
    """Layer 0 has attention, layer 1 a recurrence; `out` comes first, and tells nothing."""
    weights: Weights = {
        "blocks.{i}.out": Either(("model.layers.{i}.attn.out", "model.layers.{i}.conv.out")),
        "blocks.{i}.qkv": "model.layers.{i}.attn.qkv",
        "blocks.{i}.filters": Squeezed(Either(("model.layers.{i}.conv.a", "model.layers.{i}.conv.b")), axis=1),
        "blocks.{i}.gate": "model.layers.{i}.conv.gate",
    }
    ours = {"blocks.0.out": numbered(2), "blocks.0.qkv": numbered(2), "blocks.1.out": numbered(2)}
    ours |= {"blocks.1.filters": numbered(2, 3), "blocks.1.gate": numbered(2)}
    names = {name.removeprefix("model.layers.") for name in unconvert(ours, weights, CONFIG)}
    assert names == {"0.attn.qkv", "0.attn.out", "1.conv.gate", "1.conv.a", "1.conv.out"}


def test_unconvert_names_what_has_no_place() -> None:
    with pytest.raises(CheckpointError, match=r"^gate: no tensor of the checkpoint is known for it$"):
        written({"w": "a"}, gate=numbered(2))
    with pytest.raises(CheckpointError, match=r"two tensors of the model are a in the checkpoint$"):
        written({"w": "a", "v": "a"}, w=numbered(2), v=numbered(2))
    with pytest.raises(CheckpointError, match=r"^w: a tensor of shape \(5,\) has no place in the checkpoint$"):
        written({"w": Either((Rows(("a", "b")),))}, w=numbered(5))

    class Odd(Layout):
        def build(self, read: Any, **index: int) -> Tensor:
            raise NotImplementedError

    with pytest.raises(CheckpointError, match=r"^w: lmzoo cannot write the layout Odd yet$"):
        written({"w": Odd()}, w=numbered(2))
