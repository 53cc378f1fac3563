"""Tests of the layouts of tensors in GGUF files, on tensors whose elements show where they come from."""

from __future__ import annotations

import math

import torch

from lmzoo.gguf.layouts import ByHead, NegativeExp, Part, PlusOne, Scaled, Shaped, ToNeighbors
from lmzoo.hf.layouts import Layout
from lmzoo.hf.weights import Reader

CONFIG = {"n_heads": 2, "n_kv_heads": 1, "groups": 3}


def built(layout: Layout, tensor: torch.Tensor) -> list[object]:
    return layout.build(Reader({"x.4": tensor}, CONFIG), i=4).tolist()


def test_part_takes_one_of_several_parts_by_their_shares() -> None:
    shares = ("n_heads", "n_kv_heads", "n_kv_heads")
    rows = torch.arange(8)
    assert [built(Part("x.{i}", n, shares), rows) for n in range(3)] == [[0, 1, 2, 3], [4, 5], [6, 7]]
    experts = torch.arange(8).view(2, 4)
    assert built(Part("x.{i}", 1, axis=1), experts) == [[2, 3], [6, 7]]


def test_to_neighbors_pairs_the_halves_of_each_head() -> None:
    assert built(ToNeighbors("x.{i}", "n_heads"), torch.arange(12)) == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert built(ToNeighbors("x.{i}", "n_kv_heads"), torch.arange(8).view(4, 2)) == [[0, 1], [4, 5], [2, 3], [6, 7]]


def test_by_head_puts_the_rows_of_each_head_together() -> None:
    tensors = {"a.4": torch.arange(4), "b.4": torch.arange(10, 16)}
    ours = ByHead(("a.{i}", "b.{i}"), "n_heads").build(Reader(tensors, CONFIG), i=4)
    assert ours.tolist() == [0, 1, 10, 11, 12, 2, 3, 13, 14, 15]


def test_scaled_multiplies_by_settings() -> None:
    assert built(Scaled("x.{i}", ("groups", "n_heads")), torch.tensor([0.5], dtype=torch.bfloat16)) == [3.0]


def test_negative_exp_plus_one_and_shaped() -> None:
    assert built(NegativeExp("x.{i}"), torch.tensor([0.0, math.log(2)])) == [-1.0, -2.0]
    assert built(PlusOne("x.{i}"), torch.tensor([0.5], dtype=torch.bfloat16)) == [1.5]
    assert built(Shaped("x.{i}", ("groups", -1)), torch.arange(6)) == [[0, 1], [2, 3], [4, 5]]
