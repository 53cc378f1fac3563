"""Tests the measurement of decoding speed in a comparison."""

from __future__ import annotations

import pytest
import torch

import lmzoo
from lmzoo.compare.decode_speed import DECODE_TOKENS, WARM_UP_TOKENS, decode_length, decode_tokens_per_s


@pytest.mark.parametrize(("context_length", "length"), [(1, 1), (2, 1), (64, 63), (10_000, DECODE_TOKENS)])
def test_decode_length_stays_within_the_context(context_length: int, length: int) -> None:
    assert decode_length(context_length) == length


def test_decode_tokens_per_s_changes_neither_mode_nor_random_state() -> None:
    model = lmzoo.create_model("bigram", vocab_size=7, context_length=8).train()
    before = torch.get_rng_state()
    assert 1 < decode_tokens_per_s(model) < 1e7
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_decode_tokens_per_s_decodes_a_slow_model_twice_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = lmzoo.create_model("bigram", vocab_size=7, context_length=64), list[int]()
    plain = model.generate
    monkeypatch.setattr(model, "generate", lambda idx, n, **more: asked.append(n) or plain(idx, n, **more))
    monkeypatch.setattr("lmzoo.compare.decode_speed._SECONDS", 0.0)
    decode_tokens_per_s(model)
    assert asked == [WARM_UP_TOKENS, 63]
