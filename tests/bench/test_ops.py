"""Tests the measurement of the forms of sequence algorithms."""

from __future__ import annotations

import pytest
import torch

import lmzoo
from lmzoo import registry
from lmzoo.bench import ops
from lmzoo.ops import delta_rule
from lmzoo.ops.delta_rule import chunked_delta_rule
from lmzoo.ops.kernels import Kernel
from lmzoo.ops.selective_scan import chunked_selective_scan, naive_selective_scan
from tests.cases import each_case


def make_model() -> lmzoo.LanguageModel:
    return lmzoo.create_model("mamba", vocab_size=13, d_model=8, n_layers=2, context_length=16)


def test_ops_of_returns_each_algorithm_with_the_arguments_of_the_model() -> None:
    calls = ops.ops_of(make_model(), 5, rows=3)
    assert sorted(calls) == ["causal_conv1d", "selective_scan"]
    choice, args = calls["selective_scan"]
    assert (choice.naive, choice.fast) == (naive_selective_scan, chunked_selective_scan)
    assert args[0].shape == (3, 5, 16)


RECURRENCES = {
    "deltaproduct": "delta_product",
    "hyena": "long_conv",
    "log_linear": "log_linear_attention",
    "mamba3": "trapezoidal_attention",
    "path_attention": "path_attention",
    "s4d": "diagonal_ssm",
    "s4d.s5-1m": "diagonal_scan",
    "ttt": "ttt",
}
LINEAR = [name for name, family in registry.families().items() if family.facts["kind"] == "linear"]


@each_case("name", sorted({*LINEAR, *RECURRENCES}))
def test_ops_of_sees_the_recurrence_of_every_family_that_has_one(name: str) -> None:
    settings = {"n_layers": 2 if name == "xlstm" else 1, "context_length": 16}
    calls = ops.ops_of(lmzoo.create_model(name, vocab_size=13, **settings), 5, rows=2)
    assert calls.keys() - {"causal_conv1d"}, "its algorithm has a dispatcher"
    if name in RECURRENCES:
        choice, args = calls[RECURRENCES[name]]
        for form in (choice.naive, choice.fast):
            ops.forward_backward(form, args)()


def test_bench_ops_measures_both_forms_at_each_length() -> None:
    told: list[str] = []
    result = ops.bench_ops(make_model(), (1, 8), rows=2, repeats=1, progress=told.append)
    assert [(entry["op"], entry["T"], entry["form"]) for entry in result["results"]] == [
        ("causal_conv1d", 1, "naive_causal_conv1d"),
        ("causal_conv1d", 8, "shifted_causal_conv1d"),
        ("selective_scan", 1, "naive_selective_scan"),
        ("selective_scan", 8, "chunked_selective_scan"),
    ]
    for entry in result["results"]:
        spent = entry["naive_ms"] if entry["form"].startswith("naive") else entry["fast_ms"]
        assert entry["slowdown"] == spent / min(entry["naive_ms"], entry["fast_ms"]) >= 1
        assert entry["kernel_ms"] is None
    assert "selective_scan, 8 tokens" in told
    assert result["precision"] == "float32"
    assert result["machine"]["kernels"] == "none"


def test_bench_ops_measures_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(chunked_delta_rule, "it fits")
    monkeypatch.setattr(delta_rule, "find_kernel", lambda *_, **__: kernel)
    model = lmzoo.create_model("deltanet", vocab_size=13, d_model=8, n_layers=1, n_heads=2, context_length=16)
    results = {entry["op"]: entry for entry in ops.bench_ops(model, (8,), rows=2, repeats=1)["results"]}
    entry = results["delta_rule"]
    assert (entry["form"], entry["why"]) == ("kernel of delta_rule", "it fits")
    assert entry["kernel_ms"] > 0


def test_bench_ops_of_a_model_without_recurrences_is_empty() -> None:
    model = lmzoo.create_model("bigram", vocab_size=13)
    assert ops.bench_ops(model, (1, 8), rows=2, repeats=1)["results"] == []


def test_bench_ops_leaves_out_a_definition_that_needs_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    choice, args = ops.ops_of(model, 8, rows=2)["selective_scan"]
    monkeypatch.setattr(ops, "MOST_BYTES", ops.saved_bytes(choice.naive, args))
    results = ops.bench_ops(model, (32, 1, 8, 16), rows=2, repeats=1)["results"]
    measured = {entry["T"]: entry["naive_ms"] is not None for entry in results if entry["op"] == "selective_scan"}
    assert measured == {1: True, 8: True, 16: True, 32: False}, "it was too large at 16 tokens"
    assert all(entry["fast_ms"] > 0 and entry["slowdown"] >= 1 for entry in results)


def test_saved_bytes_counts_each_storage_once() -> None:
    x = torch.ones(3, 4)
    assert ops.saved_bytes(lambda x: x.exp() * x, (x,)) == 2 * x.nbytes, "x, and its exponential twice"


def test_forward_backward_reaches_all_floating_arguments() -> None:
    seen: list[bool] = []

    def form(x: torch.Tensor, ids: torch.Tensor, none: None) -> tuple[torch.Tensor]:
        x.register_hook(lambda grad: seen.append(True)) if x.requires_grad and torch.is_grad_enabled() else None
        return (x[ids] * 2,)

    ops.forward_backward(form, (torch.ones(3), torch.tensor([0, 2]), None))()
    ops.forward_backward(lambda *args: form(*args)[0], (torch.ones(3), torch.tensor([0, 2]), None))()  # one output
    assert seen == [True] * 2
