"""Tests that compiled functions record calls of einops as they are, with values, gradients and any length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from einops import rearrange, repeat
from torch import Tensor

from lmzoo.compiling import compiled


def split(x_BTD: Tensor) -> Tensor:
    """Heads of half the width, each position twice."""
    return repeat(rearrange(x_BTD, "b t (h d) -> b h t d", h=2), "b h t d -> b h (t copy) d", copy=2).sin()


def test_compiled_records_calls_of_einops() -> None:
    recorded: list[Any] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        recorded.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    torch._dynamo.reset()
    compiled(split, backend=keep)(torch.randn(2, 3, 8))
    assert recorded == [rearrange, repeat]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_gives_values_and_gradients_at_any_length(backend: str) -> None:
    torch._dynamo.reset()
    captured = compiled(split, backend=backend, fullgraph=True)
    for T in (3, 5, 8):  # from the second length on the graph holds for any
        plain, other = (torch.randn(2, T, 8, generator=torch.Generator().manual_seed(T)) for _ in range(2))
        plain.requires_grad_()
        other.requires_grad_()
        expected, found = split(plain), captured(other)
        expected.sum().backward()
        found.sum().backward()
        assert torch.equal(found, expected)
        assert plain.grad is not None
        assert other.grad is not None
        assert torch.equal(other.grad, plain.grad)
