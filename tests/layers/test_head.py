"""Heads: a tied head has no parameter of its own, an untied one is a linear map without a bias."""

from __future__ import annotations

import copy

import torch

from lmzoo.layers.head import TiedHead, make_head
from lmzoo.layers.linear import Embedding, Linear


def test_tied_head_owns_no_parameter_and_uses_the_embedding() -> None:
    embedding = Embedding(7, 4)
    head = make_head(embedding, tied=True)
    assert isinstance(head, TiedHead)
    assert list(head.parameters()) == []
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(head(x), x @ embedding.weight.T)
    with torch.no_grad():
        embedding.weight.zero_()
    assert (head(x) == 0).all()
    assert head.flops(10) == 2 * 7 * 4
    assert head.is_linear, "the loss in chunks reads it"


def test_tied_head_stays_tied_in_a_copy_of_both() -> None:
    embedding = Embedding(7, 4)
    both = copy.deepcopy(torch.nn.ModuleList([embedding, TiedHead(embedding)]))
    assert both[1].weight is both[0].weight
    assert both[1].weight is not embedding.weight


def test_make_head_untied_is_linear_without_a_bias() -> None:
    head = make_head(Embedding(7, 4), tied=False)
    assert isinstance(head, Linear)
    assert head.weight.shape == (7, 4)
    assert head.bias is None
