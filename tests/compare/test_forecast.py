"""Tests the forecast of the time of a comparison against the time that runs take."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import lmzoo
from lmzoo.compare import forecast, sample
from lmzoo.compare.forecast import Cost, measure_cost, part_seconds, step_seconds, steps_done, total_seconds
from lmzoo.compare.grid import make_cell
from lmzoo.data.corpora import load_corpus
from lmzoo.data.store import TokenSplit, open_store
from lmzoo.data.tokenizers import Tokenizer, train_tokenizer
from lmzoo.model import LanguageModel
from lmzoo.runs.run import train_run
from lmzoo.runs.spec import RunSpec
from lmzoo.state import State

pytestmark = pytest.mark.usefixtures("long_timing")


@pytest.fixture
def tokenizer(text: Path) -> Tokenizer:
    return train_tokenizer("char", load_corpus(str(text)).chunks("train"))


@pytest.fixture
def val(text: Path, tokenizer: Tokenizer) -> TokenSplit:
    return open_store(load_corpus(str(text)), tokenizer).val


def test_part_seconds_counts_steps_evaluations_and_decoded_tokens(
    small_spec: Callable[..., RunSpec], val: TokenSplit, tmp_path: Path
) -> None:
    spec = small_spec(steps=12, eval_every=4)
    cell = make_cell(tmp_path, spec, spec, "gpt2")
    assert part_seconds(cell, Cost(2.0, 0.0, 0.0), val, 0, 12) == 24.0
    assert part_seconds(cell, Cost(2.0, 0.0, 0.0), val, 8, 12) == 8.0
    evaluating, decoding = Cost(0.0, 1.0, 0.0), Cost(0.0, 0.0, 1.0)
    assert part_seconds(cell, evaluating, val, 0, 12) == 3 * val.n_tokens, "after 4, 8 and 12 steps"
    assert part_seconds(cell, evaluating, val, 0, 12, tuned=True) == 1.5 * val.n_tokens, "of the half that is reported"
    assert part_seconds(cell, evaluating, val, 0, 12, first=True) == 4 * val.n_tokens, "also in longer windows"
    assert part_seconds(cell, evaluating, val, 12, 12, tuned=True) == 0.5 * val.n_tokens, "of a run that was chosen"
    assert part_seconds(cell, decoding, val, 0, 12) == 0
    assert part_seconds(cell, decoding, val, 0, 12, first=True) > sample.SAMPLE_TOKENS
    other_way = Cost(0.0, 1.0, 0.0, reading=100.0)
    assert part_seconds(cell, other_way, val, 0, 12) == 3 * val.n_tokens + 100.0, "at the end, in its own way"
    odd = small_spec(steps=13, eval_every=4)
    assert part_seconds(make_cell(tmp_path, odd, odd, "gpt2"), evaluating, val, 0, 13) == 4 * val.n_tokens


def test_part_seconds_of_a_run_of_a_search(small_spec: Callable[..., RunSpec], val: TokenSplit, tmp_path: Path) -> None:
    spec = small_spec(steps=12, eval_every=4)
    cell = make_cell(tmp_path, spec, spec, "gpt2")
    given: dict[str, bool] = {"first": True, "tuned": True, "trial": True}
    assert part_seconds(cell, Cost(2.0, 0.0, 0.0), val, 3, 9, **given) == 12.0
    assert part_seconds(cell, Cost(0.0, 1.0, 0.0), val, 3, 9, **given) == 1.5 * val.n_tokens, (
        "one half of the split each time"
    )
    assert part_seconds(cell, Cost(0.0, 1.0, 0.0), val, 3, 12, **given) == 1.5 * val.n_tokens, "after 4, 8 and 12 steps"
    assert part_seconds(cell, Cost(0.0, 0.0, 1.0), val, 3, 12, **given) == 0.0, "no sample"


@pytest.mark.timing
def test_measure_cost_predicts_the_time_of_a_run(
    small_spec: Callable[..., RunSpec], tokenizer: Tokenizer, val: TokenSplit, tmp_path: Path
) -> None:
    spec = small_spec(steps=150, eval_every=50)
    cell = make_cell(tmp_path, spec, spec, "gpt2")
    random_state = torch.get_rng_state()
    cost = measure_cost(cell, tokenizer.vocab_size, val, False)
    assert torch.equal(torch.get_rng_state(), random_state)
    began = time.perf_counter()
    train_run(spec, cell.run)
    spent = time.perf_counter() - began
    assert 1 / 3 < part_seconds(cell, cost, val, 0, 150) / spent < 3
    assert steps_done(cell) == 150


def test_measure_cost_of_a_model_that_diverges_at_once(
    small_spec: Callable[..., RunSpec], tokenizer: Tokenizer, val: TokenSplit, tmp_path: Path
) -> None:
    """Its run shows that, and is a result; the forecast must not end the comparison."""
    spec = small_spec("gpt2", learning_rate=1e30, grad_clip=0.0)
    cost = measure_cost(make_cell(tmp_path, spec, spec, "gpt2"), tokenizer.vocab_size, val, False)
    assert min(cost.step, cost.eval_token, cost.new_token) > 0


def test_measure_cost_of_windows_that_overlap(
    small_spec: Callable[..., RunSpec], tokenizer: Tokenizer, val: TokenSplit, tmp_path: Path
) -> None:
    spec = small_spec("bigram")
    cell = make_cell(tmp_path, spec, spec, "bigram")
    assert measure_cost(cell, tokenizer.vocab_size, val, False).reading == 0.0
    cost = measure_cost(cell, tokenizer.vocab_size, val, False, stride=4)
    assert cost.reading == pytest.approx(4 * val.n_tokens * cost.eval_token)


@pytest.mark.parametrize(("name", "slower"), [("llama.tiny", 1 / 8), ("lstm.tiny", 0.0)])
@pytest.mark.parametrize("lengths", [[45], [30, 10, 5, 0]])
def test_carried_seconds_follow_from_the_lengths_of_the_rows(
    monkeypatch: pytest.MonkeyPatch, name: str, slower: float, lengths: list[int]
) -> None:
    """Each token takes a second, and `slower` more for each token that the state holds before its window."""
    model = lmzoo.create_model(name, vocab_size=5, d_model=8, context_length=8)
    features, spent = type(model).features, [0.0]

    def counted(self: LanguageModel, idx_BT: torch.Tensor, state: State = None) -> tuple[torch.Tensor, State]:
        before = 0 if state is None else state.position
        spent.append(idx_BT.numel() * (1 + slower * before))
        return features(self, idx_BT, state)

    monkeypatch.setattr(type(model), "features", counted)
    monkeypatch.setattr(forecast, "timed", lambda work: (work(), spent[-1])[1])
    tokens = np.zeros(sum(lengths) + len(lengths), np.uint16)
    ends = np.cumsum([length + 1 for length in lengths]) if len(lengths) > 1 else None
    split = TokenSplit("", "val", tokens, tokens.size, tokens.size, tokens.size, ends)
    expected = sum(length + slower * length**2 / 2 for length in lengths)
    assert forecast.carried_seconds(model, split, "float32") == pytest.approx(expected)


def test_step_seconds_counts_all_batches_of_a_step(
    small_spec: Callable[..., RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[int] = []
    spec = small_spec(grad_accumulation=3)
    for seconds, numbers in ((0.25, [1]), (0.1, [1, 4]), (0.001, [1, 100])):
        monkeypatch.setattr(
            forecast.PlainSteps, "__call__", lambda self, number, each=seconds: timed.append(number) or each * number
        )
        assert step_seconds(spec.make_model(30), spec.train) == pytest.approx(3 * seconds)
        assert timed == numbers, "a slow step is timed once"
        timed.clear()
    step_seconds(spec.make_model(30), spec.train, share=0.01)
    assert timed == [1, 4]


def test_steps_done_of_a_run_that_is_not_there(small_spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    spec = small_spec()
    assert steps_done(make_cell(tmp_path, spec, spec, "gpt2")) == 0


def test_total_seconds_gives_the_longest_run_to_the_first_free_worker() -> None:
    assert total_seconds([[[2.0, 3.0]], [[2.0]]], 1) == 7.0
    assert total_seconds([[[2.0, 3.0]], [[2.0]]], 2) == 4.0
    assert total_seconds([[[2.0, 3.0]], [[2.0]]], 9) == 3.0
    assert total_seconds([], 2) == total_seconds([[]], 2) == 0.0


def test_total_seconds_begins_a_group_when_the_one_before_has_ended() -> None:
    assert total_seconds([[[1.0, 1.0, 1.0], [], [1.0, 1.0], [2.0]]], 2) == 5.0
    assert total_seconds([[[1.0], [4.0]], [[1.0, 2.0]]], 2) == 5.0, "another model uses the other worker"
