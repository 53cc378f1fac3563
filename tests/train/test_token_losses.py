"""Tests the losses of single targets, and their means by position, against the logits of the model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lmzoo.data import load_corpus, open_store, train_tokenizer
from lmzoo.data.store import TokenSplit
from lmzoo.model import LanguageModel
from lmzoo.train import token_losses as module
from lmzoo.train.evaluate import PositionLoss, evaluate
from lmzoo.train.token_losses import TokenLosses, losses_in_steps, token_losses


@pytest.fixture
def split(text: Path) -> TokenSplit:
    corpus = load_corpus(str(text))
    return open_store(corpus, train_tokenizer("char", corpus.chunks("train"))).val


def direct(model: LanguageModel, ids: torch.Tensor, start: int, target: int) -> float:
    """The loss of the token `target` after the tokens from `start` on."""
    return -model(ids[None, start:target]).logits[0, -1].log_softmax(-1)[ids[target]].item()


@pytest.mark.parametrize("stride", [None, 5])
def test_token_losses_are_those_of_each_target(
    model: LanguageModel, split: TokenSplit, stride: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS_AT_A_TIME", 48)
    monkeypatch.setattr(module, "chunk_size", lambda vocab_size: 7)  # the logits of 7 positions at a time
    found = token_losses(model, split, stride=stride)
    assert model.training
    assert found.loss_N.shape == (split.n_tokens - 1,)
    assert found.mean == pytest.approx(evaluate(model, split, stride=stride).loss, abs=1e-5)
    model.eval()
    ids = torch.from_numpy(split.tokens.astype("int64"))
    for target in [*range(1, 40), split.n_tokens - 1]:
        start = -(-max(0, target - 16) // (stride or 16)) * (stride or 16)
        assert found.loss_N[target - 1] == pytest.approx(direct(model, ids, start, target), abs=1e-5)


def test_losses_in_steps_tells_how_many_targets_are_done(
    model: LanguageModel, split: TokenSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS_AT_A_TIME", 480)
    steps = losses_in_steps(model, split, stride=5)
    told = [next(steps) for _ in range(2)]
    assert told[0] == (0, split.n_tokens - 1)
    assert 0 < told[1][0] < split.n_tokens
    steps.close()
    assert model.training, "as before"


def test_token_losses_by_position_use_every_prediction(model: LanguageModel, split: TokenSplit) -> None:
    """Also in windows that do not count them: else a stride of 1 would leave the early positions of one window."""
    short = TokenSplit("", "val", split.tokens[:23], 23, 23, 23)
    found = token_losses(model, short, stride=5)  # windows from 0, 5 and 10, the last one with 12 targets
    assert found.count_T.tolist() == [3] * 12 + [2] * 4
    assert found.loss_N.shape == (22,)
    model.eval()
    ids = torch.from_numpy(short.tokens.astype("int64"))
    for n, starts in ((1, (0, 5, 10)), (9, (0, 5, 10)), (16, (0, 5))):
        mean = sum(direct(model, ids, start, start + n) for start in starts) / len(starts)
        assert found.sum_T[n - 1] / found.count_T[n - 1] == pytest.approx(mean, abs=1e-5)


def test_token_losses_by_position_are_means_over_ranges() -> None:
    found = TokenLosses(np.ones(3, np.float32), np.array([8.0, 6.0, 4.0, 3.0, 2.0, 0.0]), np.array([4, 3, 2, 2, 1, 0]))
    assert found.by_position(3) == [
        PositionLoss(1, 1, 2.0, 4),
        PositionLoss(2, 2, 2.0, 3),
        PositionLoss(3, 3, 2.0, 2),
        PositionLoss(4, 4, 1.5, 2),
        PositionLoss(5, 5, 2.0, 1),
    ]
    assert found.by_position(6)[2:] == [PositionLoss(3, 4, 7 / 4, 4), PositionLoss(5, 5, 2.0, 1)]


def test_token_losses_are_float32_in_bfloat16(model: LanguageModel, split: TokenSplit) -> None:
    short = TokenSplit("", "val", split.tokens[:40], 40, 40, 40)
    model.head = nn.Linear(16, 40)  # large logits, of which bfloat16 has two digits
    nn.init.normal_(model.head.weight, std=20.0)
    exact = token_losses(model, short).mean
    found = token_losses(model, short, precision="bf16")
    assert found.mean == pytest.approx(evaluate(model, short, precision="bf16").loss, rel=1e-6)
    assert not math.isclose(found.mean, exact, rel_tol=1e-5)
    model.to(torch.bfloat16)
    found = token_losses(model, short)
    assert found.loss_N.dtype == np.float32
    assert found.mean == pytest.approx(evaluate(model, short).loss, rel=1e-6)
