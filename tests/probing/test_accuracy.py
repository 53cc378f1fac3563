"""Tests of the accuracy on questions."""

from __future__ import annotations

import pytest
import torch

import lmzoo
from lmzoo.losses import IGNORE_INDEX
from lmzoo.probing import accuracy as module
from lmzoo.probing.accuracy import accuracy


def test_accuracy_counts_right_answers_among_the_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lmzoo.create_model("gpt2", vocab_size=13, d_model=16, n_layers=1, n_heads=2, context_length=10, dropout=0.5)
    idx = torch.randint(13, (7, 10))
    with torch.no_grad():
        targets = model.eval()(idx).logits.argmax(dim=-1)
    model.train()
    wrong, unasked = torch.rand(7, 10) < 0.3, torch.rand(7, 10) < 0.4
    targets[wrong] = (targets[wrong] + 1) % 13
    targets[unasked] = IGNORE_INDEX
    asked = (~unasked).sum().item()
    expected = (~unasked & ~wrong).sum().item() / asked
    assert 0 < expected < 1
    seen: list[tuple[int, ...]] = []
    assert accuracy(model, idx, targets, progress=lambda *rows: seen.append(rows)) == expected
    assert seen == [(0, 7)]
    assert model.training
    monkeypatch.setattr(module, "TOKENS_AT_A_TIME", 30)  # three rows
    seen.clear()
    assert accuracy(model, idx, targets, progress=lambda *rows: seen.append(rows)) == expected
    assert seen == [(0, 7), (3, 7), (6, 7)]
    monkeypatch.setattr(module, "_LOGITS_AT_A_TIME", 260)  # two rows
    seen.clear()
    assert accuracy(model, idx, targets, progress=lambda *rows: seen.append(rows)) == expected
    assert len(seen) == 4
