"""Tests of the FLOP counter and of the number that replaces its count for a block of code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from lmzoo.ops.counting import FlopCounter, counted_as

X, W = torch.randn(2, 3), torch.randn(3, 5)
PRODUCT = 2 * 2 * 3 * 5


def declared(x: Tensor, w: Tensor) -> Tensor:
    """Two products, which count as 7 FLOPs."""
    with counted_as(7):
        return x @ (w @ w.t()) @ w


def test_flop_counter_counts_as_torch_does_without_a_declaration() -> None:
    with FlopCounter() as counter:
        X @ W
    assert counter.get_total_flops() == PRODUCT


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_flop_counter_counts_a_whole_layer_as_torch_does(mode: Any) -> None:
    """With operators that are made of others, which inference mode does not divide, and with a backward pass."""
    layer = torch.nn.TransformerEncoderLayer(8, 2, dim_feedforward=16)
    counts = []
    for counter in (FlopCounter(), FlopCounterMode(display=False)):
        with mode(), sdpa_kernel(SDPBackend.MATH), counter:
            y = layer(torch.ones(3, 5, 8)) + torch.einsum("tbd,sbd->tsb", *torch.ones(2, 3, 5, 8)).sum()
            if mode is torch.enable_grad:
                y.sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_flop_counter_starts_anew_when_it_is_entered_again() -> None:
    counter = FlopCounter()
    for _ in range(2):
        with counter:
            declared(X, W)
            X @ W
        assert counter.get_total_flops() == 7 + PRODUCT


def test_flop_counter_counts_nothing_after_its_block() -> None:
    with FlopCounter() as counter:
        X @ W
    declared(X, W)
    assert counter.get_total_flops() == PRODUCT


def test_counted_as_replaces_the_operators_inside_and_no_others() -> None:
    with FlopCounter() as counter:
        X @ W
        for _ in range(3):
            declared(X, W)
        X @ W
    assert counter.get_total_flops() == 2 * PRODUCT + 3 * 7


def test_counted_as_takes_the_outermost_of_nested_numbers() -> None:
    with FlopCounter() as counter:
        with counted_as(0.5):
            declared(X, W)
            X @ W
        X @ W
    assert counter.get_total_flops() == 0.5 + PRODUCT


def test_counted_as_ends_with_an_error() -> None:
    with FlopCounter() as counter:
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), counted_as(7):
            X @ W @ X
        X @ W
    assert counter.get_total_flops() == 7 + PRODUCT


def test_counted_as_does_nothing_without_a_counter() -> None:
    expected = X @ (W @ W.t()) @ W
    assert torch.equal(declared(X, W), expected)
    with FlopCounterMode(display=False) as counter:
        declared(X, W)
    assert counter.get_total_flops() > 7, "torch's own counter counts what is run"


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_counted_as_compiles_in_one_graph(backend: str) -> None:
    w = W.clone().requires_grad_()
    compiled = torch.compile(declared, fullgraph=True, backend=backend)
    for function in (compiled, declared):
        (gradient,) = torch.autograd.grad(function(X, w).square().sum(), w)
        torch.testing.assert_close(gradient, torch.autograd.grad(declared(X, w).square().sum(), w)[0])


def test_counted_as_leaves_the_backward_pass_to_torch() -> None:
    w = W.clone().requires_grad_()
    with FlopCounter() as counter:
        y = declared(X, w)
        assert counter.get_total_flops() == 7
        y.sum().backward()
        after = counter.get_total_flops()
        X @ W
    assert after > 7
    assert counter.get_total_flops() == after + PRODUCT
    assert w.grad is not None


def test_counted_as_is_counted_again_when_activations_are_recomputed() -> None:
    def run(recompute: bool) -> tuple[Tensor, float, float]:
        w = W.clone().requires_grad_()
        with FlopCounter() as counter:
            y = checkpoint(declared, X, w, use_reentrant=False) if recompute else declared(X, w)
            forward = counter.get_total_flops()
            (gradient,) = torch.autograd.grad(y.square().sum(), w)
        return gradient, forward, counter.get_total_flops()

    plain, recomputed = run(False), run(True)
    assert torch.equal(recomputed[0], plain[0])
    assert recomputed[1] == plain[1] == 7
    assert recomputed[2] == plain[2] + 7
