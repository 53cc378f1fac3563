"""Tests of straight-through gradients."""

from __future__ import annotations

import torch

from lmzoo.ops.straight_through import smooth, straight_through


def test_straight_through_has_one_value_and_the_gradient_of_another() -> None:
    x = torch.tensor([0.3, -1.7, 2.2], requires_grad=True)
    y = straight_through(x.round(), 3 * x)
    assert torch.equal(y, x.round())
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3, 3, 3]


def test_smooth_takes_the_surrogate_within_the_block_alone() -> None:
    x = torch.tensor([0.3])
    with smooth():
        assert straight_through(x.round(), 3 * x).item() == 3 * x.item()
    assert straight_through(x.round(), 3 * x).item() == 0


def test_straight_through_is_captured_in_one_graph() -> None:
    x = torch.tensor([0.3, 1.6])
    captured = torch.compile(lambda x: straight_through(x.round(), x), fullgraph=True, backend="eager")
    assert captured(x).tolist() == [0, 2]
