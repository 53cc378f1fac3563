"""Tests the validation loss and the loss by position, also beyond the context length of training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import lmzoo
from lmzoo.data import load_corpus, open_store, train_tokenizer
from lmzoo.data.store import TokenSplit
from lmzoo.errors import DataError
from lmzoo.model import LanguageModel
from lmzoo.runs.run import RunSpec, evaluate_run, evaluate_run_positions, train_run
from lmzoo.train.evaluate import evaluate, evaluate_positions, evaluation, position_ranges


@pytest.fixture
def split(text: Path) -> TokenSplit:
    corpus = load_corpus(str(text))
    return open_store(corpus, train_tokenizer("char", corpus.chunks("train"))).val


def test_evaluate_positions_averages_each_range_of_positions(split: TokenSplit) -> None:
    model = lmzoo.create_model("gpt2", vocab_size=40, d_model=8, n_layers=1, n_heads=1, context_length=8)
    ids = torch.from_numpy(split.tokens.astype("int64"))
    parts = evaluate_positions(model, split, length=8, tokens=80)
    assert [(part.first, part.last, part.tokens) for part in parts] == [
        (1, 1, 10),
        (2, 2, 10),
        (3, 4, 20),
        (5, 8, 40),
    ]
    model.eval()
    windows = torch.stack([ids[s : s + 9] for s in range(0, 80, 8)])
    with torch.no_grad():
        log_probs = model(windows[:, :-1]).logits.log_softmax(-1).gather(2, windows[:, 1:, None])[:, :, 0]
    for part in parts:
        assert part.loss == pytest.approx(-log_probs[:, part.first - 1 : part.last].mean().item(), abs=1e-5)
    whole = sum(part.loss * part.tokens for part in parts) / 80
    assert whole == pytest.approx(evaluate(model, split, tokens=80).loss, abs=1e-5)


def test_evaluate_positions_beyond_training_has_a_range_that_ends_there(split: TokenSplit) -> None:
    model = lmzoo.create_model("gpt2", vocab_size=40, d_model=8, n_layers=1, n_heads=1, context_length=6)
    parts = evaluate_positions(model, split, length=11, tokens=40)
    assert [(part.first, part.last) for part in parts] == [(1, 1), (2, 2), (3, 4), (5, 6), (7, 8), (9, 11)]
    assert parts[-1].tokens == 9, "three windows of eleven targets"
    assert len(evaluate_positions(model, split)) == 4
    with pytest.raises(DataError, match=f"length={split.n_tokens} needs {split.n_tokens + 1}"):
        evaluate_positions(model, split, length=split.n_tokens)


def test_position_ranges_cover_all_positions_and_end_at_the_training_length() -> None:
    assert position_ranges(8, 8) == [(1, 1), (2, 2), (3, 4), (5, 8)]
    assert position_ranges(11, 6) == [(1, 1), (2, 2), (3, 4), (5, 6), (7, 8), (9, 11)]
    assert position_ranges(5, 6) == [(1, 1), (2, 2), (3, 4), (5, 5)]


def test_evaluate_run_positions_agrees_with_evaluate_run(small_spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    train_run(small_spec(), tmp_path / "run")
    parts = evaluate_run_positions(tmp_path / "run")
    assert parts[-1].last == 16
    mean = sum(part.loss * part.tokens for part in parts) / sum(part.tokens for part in parts)
    assert mean == pytest.approx(evaluate_run(tmp_path / "run").loss, abs=0.02)


def test_evaluate_counts_every_target_once(model: LanguageModel, split: TokenSplit) -> None:
    ids = torch.from_numpy(split.tokens.astype("int64"))
    model.eval()
    total = 0.0
    for start in range(0, len(ids) - 1, 16):
        piece = ids[start : start + 17]
        total += model(piece[None, :-1], piece[None, 1:]).loss.item() * (len(piece) - 1)
    model.train()
    result = evaluate(model, split, batch_size=3)
    assert model.training
    assert result.tokens == len(ids) - 1
    assert result.loss == pytest.approx(total / (len(ids) - 1), abs=1e-6)
    assert result.bits_per_byte == pytest.approx(result.loss / math.log(2))
    assert evaluate(model, split, batch_size=64).loss == pytest.approx(result.loss, abs=1e-6)


@pytest.mark.parametrize("stride", [1, 5, 16])
def test_evaluate_with_a_stride_equals_a_direct_computation(
    model: LanguageModel, split: TokenSplit, stride: int
) -> None:
    ids = torch.from_numpy(split.tokens[:90].astype("int64"))
    model.eval()
    losses = []
    for target in range(1, len(ids)):
        # The first window ends at target 16; each later one ends `stride` targets after the one before it.
        start = -(-max(0, target - 16) // stride) * stride
        assert target - start > 16 - stride or start == 0
        logits = model(ids[None, start:target]).logits
        losses.append(-logits[0, -1].log_softmax(-1)[ids[target]].item())
    result = evaluate(model, split, batch_size=3, stride=stride, tokens=89)
    assert (result.tokens, result.context_length, result.stride) == (89, 16, stride)
    assert result.loss == pytest.approx(sum(losses) / 89, abs=1e-5)
    assert (result.loss == evaluate(model, split, batch_size=3, tokens=89).loss) == (stride == 16)


def test_evaluate_reads_the_first_tokens_alone(model: LanguageModel, split: TokenSplit) -> None:
    assert evaluate(model, split, tokens=100).tokens == 100


def test_evaluation_yields_its_progress_and_restores_the_mode(model: LanguageModel, split: TokenSplit) -> None:
    total = split.n_tokens - 1
    seen = list(evaluation(model, split, batch_size=3))
    assert seen[:2] == [(0, total), (3 * 16, total)]
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert list(evaluation(model, split, batch_size=3, stride=4))[:3] == [(0, total), (24, total), (36, total)]
    steps = evaluation(model, split, batch_size=3)
    next(steps)
    assert not model.training
    assert torch.is_grad_enabled()
    steps.close()
    assert model.training


def test_evaluate_reads_each_isolated_document_alone(model: LanguageModel, split: TokenSplit) -> None:
    """In pieces of the context length, 16; bits per byte are of the whole text, with the first tokens of documents."""
    ends = np.array([40, 41, 50, 100, 400, split.n_tokens])
    isolated = replace(split, ends=ends)
    model.eval()
    total, count = 0.0, 0
    for document in np.split(split.tokens.astype("int64"), ends[:-1]):
        for start in range(0, len(document) - 1, 16):
            piece = torch.from_numpy(document[start : start + 17])[None]
            total += model(piece[:, :-1], piece[:, 1:]).loss.item() * (piece.shape[1] - 1)
            count += piece.shape[1] - 1
    result = evaluate(model, isolated)
    assert (result.tokens, count) == (split.n_tokens - 6, split.n_tokens - 6)
    assert result.loss == pytest.approx(total / count, abs=1e-6)
    assert result.bits_per_byte == pytest.approx(result.loss * split.n_tokens / split.n_bytes / math.log(2))
    assert evaluate(model, isolated, tokens=100).tokens == 100
    assert next(iter(evaluation(model, isolated, tokens=100))) == (0, 100)


def test_evaluate_positions_of_isolated_documents_count_from_their_beginnings(split: TokenSplit) -> None:
    model = lmzoo.create_model("gpt2", vocab_size=40, d_model=8, n_layers=1, n_heads=1, context_length=8)
    isolated = replace(split, tokens=split.tokens[:20], n_tokens=20, ends=np.array([5, 11, 20]))
    parts = evaluate_positions(model, isolated, length=12)
    counted = [(part.first, part.last, part.tokens) for part in parts]
    assert counted == [(1, 1, 3), (2, 2, 3), (3, 4, 6), (5, 8, 5)], "the longest document has eight targets"
    ids = torch.from_numpy(split.tokens[:20].astype("int64"))[None]
    losses = [-model.score(ids[:, start:end])[0] for start, end in ((0, 5), (5, 11), (11, 20))]
    assert parts[1].loss == pytest.approx(float(sum(loss[1] for loss in losses)) / 3, abs=1e-5)
    assert parts[-1].loss == pytest.approx(float(torch.cat([loss[4:] for loss in losses]).mean()), abs=1e-5)
