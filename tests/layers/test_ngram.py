"""Tests the head of counted n-grams: before and after `fit`, and through casts."""

from __future__ import annotations

import math

import torch

from lmzoo.layers.ngram import NGramHead
from lmzoo.ops.ngram import count, probabilities


def test_ngram_head_is_uniform_until_it_is_fitted() -> None:
    head = NGramHead(7, 3, 50)
    logits_BTV = head(head.read(torch.arange(6).view(2, 3), head.start(2)))
    assert torch.equal(logits_BTV, torch.full((2, 3, 7), -math.log(7)))


def test_ngram_head_gives_the_logarithms_of_the_estimates_and_forgets_an_earlier_text() -> None:
    head, again = NGramHead(7, 3, 60), NGramHead(7, 3, 60)
    tokens_BT = torch.randint(7, (2, 50), generator=torch.Generator().manual_seed(0))
    head.fit(tokens_BT)
    again.fit(tokens_BT.flip(1)[:, :20])
    again.fit(tokens_BT)
    for name, tensor in head.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    x_BTD = head.read(tokens_BT, head.start(2))
    p_BTV = probabilities(count(tokens_BT, 7, 3, 60), 7, x_BTD)
    assert torch.equal(head(x_BTD), p_BTV.log().float())
    assert torch.equal(head.double().to(torch.bfloat16)(x_BTD), p_BTV.log().float()), "no cast rounds the counts"
