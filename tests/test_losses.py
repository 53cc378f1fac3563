"""Cross-entropy, plain and chunked, and auxiliary losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lmzoo.losses import (
    IGNORE_INDEX,
    auxiliary_loss,
    chunked_cross_entropy,
    collect_auxiliary,
    cross_entropy,
    with_auxiliary,
)


def case(ignored: int) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    targets = torch.randint(7, (2, 6))
    targets.view(-1)[:ignored] = IGNORE_INDEX
    return torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True), nn.Linear(4, 7).double(), targets


@pytest.mark.parametrize("ignored", [0, 1, 7, 12])
def test_mean_over_the_targets_that_count(ignored: int) -> None:
    x, head, targets = case(ignored)
    logits = head(x)
    terms = [-logits[b, t].log_softmax(0)[targets[b, t]] for b in range(2) for t in range(6) if targets[b, t] >= 0]
    expected = sum(terms) / len(terms) if terms else torch.tensor(0.0, dtype=torch.float64)
    torch.testing.assert_close(cross_entropy(logits, targets), expected)


@pytest.mark.parametrize("ignored", [0, 5, 12])
@pytest.mark.parametrize("chunk", [1, 5, 6, 11, 12, 100, None])
def test_chunked_equals_plain_in_value_and_gradients(ignored: int, chunk: int | None) -> None:
    x, head, targets = case(ignored)
    plain = cross_entropy(head(x), targets)
    expected = torch.autograd.grad(plain, [x, *head.parameters()])
    chunked = chunked_cross_entropy(x, head, targets, chunk=chunk)
    torch.testing.assert_close(chunked, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(chunked, [x, *head.parameters()]), expected, rtol=1e-12, atol=1e-12)


def test_chunked_never_holds_all_logits() -> None:
    held: list[int] = []

    class Head(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            logits = super().forward(input)
            held.append(logits.numel() // logits.shape[-1])
            return logits

    x = torch.randn(4, 32, 8, requires_grad=True)
    chunked_cross_entropy(x, Head(8, 11), torch.randint(11, (4, 32)), chunk=16).backward()
    assert max(held) == 16
    assert len(held) == 2 * 128 // 16  # once forward, once again in the backward pass


def test_low_precision_logits_are_summed_in_float32() -> None:
    logits = torch.zeros(1, 4096, 512, dtype=torch.bfloat16)
    loss = cross_entropy(logits, torch.zeros(1, 4096, dtype=torch.long))
    assert loss.dtype == torch.float32
    assert abs(loss.item() - math.log(512)) < 1e-5


def test_auxiliary_losses_are_minimised_but_never_reported() -> None:
    weight = torch.tensor(3.0, requires_grad=True)
    with collect_auxiliary() as named:
        auxiliary_loss("balance", weight * 2)
        auxiliary_loss("balance", weight)
        auxiliary_loss("z", weight**2)
    auxiliary_loss("balance", weight * 100)  # outside: nobody listens
    assert {name: value.item() for name, value in named.items()} == {"balance": 9.0, "z": 9.0}
    loss = with_auxiliary(weight * 0.5, named)
    loss.backward()
    assert loss.item() == 1.5
    assert weight.grad is not None
    assert weight.grad.item() == 0.5 + 2 + 1 + 6
