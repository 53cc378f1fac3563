"""Tests of layouts on small tensors: what each builds, which shapes it refuses, and that it moves each element once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.errors import CheckpointError
from lmzoo.hf.layouts import (
    Either,
    Exchanged,
    InLayer,
    Interleaved,
    Layout,
    Neighbors,
    Number,
    PartByHead,
    PerGroup,
    PerHead,
    Rows,
    Squeezed,
    Stacked,
    Transposed,
    concatenated,
    gate_and_up,
    qkv_rows,
)
from lmzoo.hf.weights import MissingTensorError, Reader, Weights, convert
from lmzoo.hf.writer import unconvert
from tests.hf.test_weights import CONFIG, numbered


def built(layout: Layout, **source: Tensor) -> Tensor:
    """Returns the tensor that a layout makes from the tensors `source`; it must use all of them."""
    return convert(source, {"w": layout}, CONFIG)["w"]


def test_rows_stand_one_below_the_other() -> None:
    q, k = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[5, 6], [7, 8]])
    assert built(Rows(("q", "k")), q=q, k=k).tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert built(Rows(("q", "k")), q=q[:, 0], k=k[:, 0]).tolist() == [1, 3, 5, 7]


def test_rows_have_the_ratio_of_their_shares() -> None:
    layout = Rows(("q", "k", "v"), shares=("n_heads", "n_kv_heads", "n_kv_heads"))
    q, k, v = numbered(4, 3), numbered(2, 3, start=12), numbered(2, 3, start=18)
    assert torch.equal(built(layout, q=q, k=k, v=v), numbered(8, 3))
    with pytest.raises(CheckpointError, match=r"^w: parts of 4, 2, 4 rows must have the ratio n_heads, n_kv_heads"):
        built(layout, q=q, k=k, v=q)
    with pytest.raises(CheckpointError, match=r"^w: parts of 4, 2 rows must have the ratio 1, 1$"):
        built(Rows(("q", "k")), q=q, k=k)


def test_number_gets_an_axis() -> None:
    assert built(Number("w"), w=torch.tensor(3.0)).tolist() == [3.0]
    assert unconvert({"w": torch.tensor([3.0])}, {"w": Number("w")}, CONFIG)["w"].shape == ()


def test_transposed_exchanges_the_last_two_axes() -> None:
    assert built(Transposed("w"), w=torch.tensor([[1, 2, 3], [4, 5, 6]])).tolist() == [[1, 4], [2, 5], [3, 6]]


def test_stacked_has_one_entry_per_expert() -> None:
    source = {f"experts.{e}.w": numbered(2, 2, start=10 * e) for e in range(3)}
    ours = built(Stacked("experts.{e}.w", "n_experts"), **source)
    assert ours.shape == (3, 2, 2)
    assert all(torch.equal(ours[e], source[f"experts.{e}.w"]) for e in range(3))


def test_layouts_nest() -> None:
    names = [f"h.{i}.{e}.{part}" for i in range(2) for e in range(3) for part in ("gate", "up")]
    source = {name: numbered(3, 2, start=6 * n) for n, name in enumerate(names)}
    layout = Stacked(Rows((Transposed("h.{i}.{e}.gate"), Transposed("h.{i}.{e}.up"))), "n_experts")
    ours = convert(source, {"blocks.{i}.up": layout}, CONFIG)
    assert ours["blocks.1.up"].shape == (3, 4, 3)
    assert torch.equal(ours["blocks.1.up"][2], torch.cat([source["h.1.2.gate"].T, source["h.1.2.up"].T]))


def test_per_head_gathers_queries_then_keys_then_values() -> None:
    """Two heads with two features each: rows q0 k0 v0 q1 k1 v1."""
    rows = ["q00", "q01", "k00", "k01", "v00", "v01", "q10", "q11", "k10", "k11", "v10", "v11"]
    expected = ["q00", "q01", "q10", "q11", "k00", "k01", "k10", "k11", "v00", "v01", "v10", "v11"]
    bias = built(PerHead("w"), w=torch.arange(12))
    assert [rows[n] for n in bias] == expected
    weight = numbered(12, 5)
    assert torch.equal(built(PerHead("w"), w=weight), weight[bias])


def test_per_group_gathers_queries_then_keys_then_values() -> None:
    ours = convert({"a": numbered(8, 1)}, {"w": PerGroup("a")}, {**CONFIG, "n_heads": 4, "n_kv_heads": 2})["w"]
    assert ours.flatten().tolist() == [0, 1, 4, 5, 2, 6, 3, 7]
    ours = convert({"a": numbered(8, 1)}, {"w": PerGroup("a")}, {**CONFIG, "n_heads": 2, "n_kv_heads": 1})["w"]
    assert ours.flatten().tolist() == [*range(8)], "one key of two rows, and its value, after two queries"


def test_part_by_head_takes_one_part_of_each_head() -> None:
    """Two heads with rows of three parts, a a b c c."""
    rows = ["a00", "a01", "b0", "c00", "c01", "a10", "a11", "b1", "c10", "c11"]
    shares = ("n_heads", 1, 2)
    weights: Weights = {part: PartByHead("w", "n_heads", n, shares) for n, part in enumerate("abc")}
    ours = convert({"w": torch.arange(10)}, weights, CONFIG)
    assert {part: [rows[n] for n in tensor] for part, tensor in ours.items()} == {
        "a": ["a00", "a01", "a10", "a11"],
        "b": ["b0", "b1"],
        "c": ["c00", "c01", "c10", "c11"],
    }
    assert torch.equal(unconvert(ours, weights, CONFIG)["w"], torch.arange(10))


def test_neighbors_become_halves_in_the_last_rows_of_each_head() -> None:
    layout = Neighbors("a", rotated="rope_dim", heads="n_heads")
    ours = convert({"a": numbered(14, 1)}, {"w": layout}, {**CONFIG, "rope_dim": 4})["w"]
    assert ours.flatten().tolist() == [0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 12, 11, 13]
    layout = Neighbors("a", rotated="rope_dim", heads="n_heads", first=True)
    ours = convert({"a": numbered(14, 1)}, {"w": layout}, {**CONFIG, "rope_dim": 4})["w"]
    assert ours.flatten().tolist() == [0, 2, 1, 3, 4, 5, 6, 7, 9, 8, 10, 11, 12, 13]
    ours = convert({"a": numbered(14, 1)}, {"w": Neighbors("a", 0.6, "n_heads", first=True)}, CONFIG)["w"]
    assert ours.flatten().tolist() == [0, 2, 1, 3, 4, 5, 6, 7, 9, 8, 10, 11, 12, 13]


def test_exchanged_halves_of_each_head_are_their_own_inverse() -> None:
    weights: Weights = {"w": Exchanged("a", "n_heads")}
    ours = convert({"a": numbered(8, 1)}, weights, CONFIG)
    assert ours["w"].flatten().tolist() == [2, 3, 0, 1, 6, 7, 4, 5]
    assert torch.equal(unconvert(ours, weights, CONFIG)["a"], numbered(8, 1))


def test_either_is_the_first_source_that_is_complete() -> None:
    weights: Weights = {"blocks.{i}.up": Either((Rows(("h.{i}.gate", "h.{i}.up")), "h.{i}.both"))}
    source = {"h.0.gate": numbered(2), "h.0.up": numbered(2, start=2), "h.1.both": numbered(3)}
    ours = convert(source, weights, CONFIG)
    assert [ours[f"blocks.{i}.up"].tolist() for i in range(2)] == [[0, 1, 2, 3], [0, 1, 2]]
    with pytest.raises(CheckpointError, match=r"^the checkpoint holds h\.1\.gate, which the model has no place for$"):
        convert({**source, "h.1.gate": numbered(2)}, weights, CONFIG)
    with pytest.raises(MissingTensorError, match=r"^blocks\.1\.up: the checkpoint has no h\.1\.gate$"):
        Reader({}, CONFIG).ours(weights, "blocks.1.up")


def test_interleaved_rows_of_experts_stand_gate_first() -> None:
    theirs = numbered(2, 4, 3)
    assert built(Interleaved("w"), w=theirs).tolist() == theirs[:, [0, 2, 1, 3]].tolist()
    assert built(Interleaved("w"), w=theirs[..., 0])[1].tolist() == theirs[1, [0, 2, 1, 3], 0].tolist()


def test_squeezed_drops_an_axis_of_length_1() -> None:
    assert torch.equal(built(Squeezed("w", axis=1), w=numbered(4, 1, 3)), numbered(4, 3))
    with pytest.raises(CheckpointError, match=r"^w: axis 1 of shape \(4, 2, 3\) must have the length 1"):
        built(Squeezed("w", axis=1), w=numbered(4, 2, 3))


@pytest.mark.parametrize(
    ("layout", "source"),
    [
        (Rows(("a", "b")), {"a": numbered(2, 3), "b": numbered(2, 4)}),
        (Transposed("a"), {"a": numbered(2)}),
        (Stacked("a{e}", "n_experts"), {"a0": numbered(2), "a1": numbered(2), "a2": numbered(3)}),
        (PerHead("a"), {"a": numbered(8, 2)}),
        (PartByHead("a", 2, 0, (1, 2)), {"a": numbered(10, 2)}),
        (PartByHead("a", 2, 0, (0, 0)), {"a": numbered(10, 2)}),
        (Neighbors("a", "n_heads", 2), {"a": numbered(7, 2)}),
        (Exchanged("a", 2), {"a": numbered(6, 2)}),
        (Squeezed("a", axis=1), {"a": numbered(4)}),
    ],
)
def test_layouts_refuse_a_shape_that_does_not_fit(layout: Layout, source: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"^w: .+"):
        built(layout, **source)


@pytest.mark.parametrize(
    ("layout", "source"),
    [
        (Rows(("a", "b")), {"a": numbered(2, 3), "b": numbered(2, 3, start=6)}),
        (Transposed("a"), {"a": numbered(2, 3)}),
        (Stacked("a{e}", "n_experts"), {f"a{e}": numbered(2, start=2 * e) for e in range(3)}),
        (PerHead("a"), {"a": numbered(12, 2)}),
        (Neighbors("a", "n_heads", 2), {"a": numbered(10, 2)}),
        (Squeezed("a", axis=1), {"a": numbered(4, 1, 3)}),
    ],
)
def test_layouts_move_each_element_once(layout: Layout, source: dict[str, Tensor]) -> None:
    """A layout that drops or repeats an element would have no inverse."""
    every = torch.cat([tensor.flatten() for tensor in source.values()])
    assert built(layout, **source).flatten().sort().values.tolist() == every.tolist()


def test_concatenated_is_the_same_without_memory() -> None:
    parts = [numbered(2, 3), numbered(4, 3)]
    for dim, pieces in ((0, parts), (1, [part.T for part in parts])):
        expected = torch.cat(pieces, dim=dim)
        assert torch.equal(concatenated(pieces, dim), expected)
        on_meta = concatenated([piece.to("meta") for piece in pieces], dim)
        assert (on_meta.shape, on_meta.dtype, on_meta.is_meta) == (expected.shape, expected.dtype, True)
    with pytest.raises(CheckpointError, match=r"parts of shapes \(2, 3\), \(3, 4\) must agree"):
        concatenated([parts[0].to("meta"), parts[1].T.to("meta")])


def test_rows_that_follow_each_other_in_a_file_are_not_copied() -> None:
    class Mapped(dict[str, Tensor]):
        def adjacent(self, names: list[str]) -> Tensor | None:
            return both if names == ["a", "b"] else None

    both = numbered(4, 3)
    tensors = Mapped(a=both[:2], b=both[2:])
    assert Reader(tensors, CONFIG)(Rows(("a", "b"))) is both
    assert torch.equal(Reader(tensors, CONFIG)(Rows(("b", "a"))), torch.cat([both[2:], both[:2]]))


def test_rows_of_projections_with_the_usual_names() -> None:
    q, k, v = numbered(4, 3), numbered(2, 3, start=12), numbered(2, 3, start=18)
    source = {f"attn.{part}_proj.weight": tensor for part, tensor in zip("qkv", (q, k, v), strict=True)}
    assert torch.equal(built(qkv_rows("attn."), **source), numbered(8, 3))
    for kind in ("weight", "bias"):
        source = {f"mlp.{part}_proj.{kind}": tensor for part, tensor in (("up", v), ("gate", k))}
        assert torch.equal(built(gate_and_up("mlp.", kind), **source), torch.cat([k, v]))


def test_in_layer_reads_and_writes_one_layer() -> None:
    source, weights = {"h.1.w": numbered(2)}, {"blocks.1.w": InLayer("h.{i}.w", 1)}
    ours = convert(source, weights, CONFIG)
    assert ours["blocks.1.w"] is source["h.1.w"]
    assert unconvert(ours, weights, CONFIG) == source
