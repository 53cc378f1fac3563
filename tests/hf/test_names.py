"""Tests of names of weights that mappings share."""

from __future__ import annotations

from lmzoo.hf.layouts import Either, InLayer, PerHead, Rows, Stacked
from lmzoo.hf.names import W1_W3_W2, both, by_layer, experts, frame, full_qkv, gated, outside, qkv, within
from lmzoo.hf.weights import Head


def test_frame_may_have_a_tied_head() -> None:
    head = Head("lm_head.weight", tokens="emb.weight")
    names = {"tokens.weight": "emb.weight", "norm.weight": "ln.weight"}
    assert frame("emb", "ln") == {**names, "head.weight": head}
    assert frame("emb", "ln", head="head.linear") == {**names, "head.linear.weight": head}


def test_both_have_one_layout() -> None:
    assert both("a", "b") == {"a.weight": "b.weight", "a.bias": "b.bias"}
    assert both("a", "b", PerHead) == {"a.weight": PerHead("b.weight"), "a.bias": PerHead("b.bias")}


def test_qkv_are_rows_of_which_queries_and_keys_may_be_rotated() -> None:
    def rotated(name: str, heads: str) -> PerHead:
        return PerHead(name, heads)

    shares = ("n_heads", "n_kv_heads", "n_kv_heads")
    parts = ("m.q_proj.bias", "m.k_proj.bias", "m.v_proj.bias")
    assert qkv("m.")["blocks.{i}.0.inner.qkv.bias"] == Rows(parts, shares)
    layouts = (PerHead(parts[0], "n_heads"), PerHead(parts[1], "n_kv_heads"), parts[2])
    assert qkv("m.", rotated)["blocks.{i}.0.inner.qkv.bias"] == Rows(layouts, shares)
    assert full_qkv("o.", "m.")["o.qkv.bias"] == Rows(parts)


def test_gated_joins_gate_and_up() -> None:
    expected = {"o.up.weight": Rows(("m.gate_proj.weight", "m.up_proj.weight")), "o.down.weight": "m.down_proj.weight"}
    assert gated("o.", "m.") == expected


def test_experts_are_in_one_tensor_or_one_for_each() -> None:
    each = Stacked(Rows(("m.{e}.gate_proj.weight", "m.{e}.up_proj.weight")), "n_experts")
    assert experts("m.")["blocks.{i}.1.inner.up"] == Either((each, "m.gate_up_proj"))
    down = Either((Stacked("old.{e}.w2.weight", "n_experts"), "m.down_proj"))
    assert experts("m.", W1_W3_W2, each="old.")["blocks.{i}.1.inner.down"] == down


def test_by_layer_has_the_parts_of_each_word() -> None:
    parts = {"a": {"x": "a.{i}.x", "y": "a.{i}.y"}, "b": {"x": "b.{i}.x"}}
    assert by_layer(["b", "a"], parts, "blocks.{i}.0.") == {
        "blocks.0.0.x": InLayer("b.{i}.x", 0),
        "blocks.1.0.x": InLayer("a.{i}.x", 1),
        "blocks.1.0.y": InLayer("a.{i}.y", 1),
    }


def test_within_and_outside_divide_a_map() -> None:
    names = {"tokens": "a", "blocks.0.inner.x": "b", "blocks.0.before": "c"}
    assert within(names, ".inner.") == {"blocks.0.inner.x": "b"}
    assert outside(names, ".inner.") == {"tokens": "a", "blocks.0.before": "c"}
