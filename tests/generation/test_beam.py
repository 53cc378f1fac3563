"""Tests of beam search against exhaustive search and greedy decoding."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from torch import Tensor

import lmzoo
from lmzoo.errors import InputError
from lmzoo.generation import beam_search
from lmzoo.model import LanguageModel
from tests.helpers import far_from_uniform

V, NEW, CONTEXT = 4, 4, 5


@functools.cache
def make(name: str) -> LanguageModel:
    sizes = {"d_model": 16, "n_layers": 2, "n_heads": 2, "dropout": 0.5} if name == "gpt2" else {}
    model = lmzoo.create_model(name, vocab_size=V, context_length=CONTEXT, **sizes)
    return far_from_uniform(model, std=1.0, seed=3)


def log_probs(model: LanguageModel, prompt: list[int], news: list[tuple[int, ...]]) -> Tensor:
    """Log-probability of each token of each continuation, by `forward` on the window before it: (len(news), NEW)."""
    model.eval()
    tokens, columns = torch.tensor([[*prompt, *new] for new in news]), []
    for t in range(len(prompt), tokens.shape[1]):
        logits = model(tokens[:, max(0, t - CONTEXT) : t]).logits.detach()
        columns.append(logits[:, -1].double().log_softmax(-1).gather(1, tokens[:, t : t + 1]))
    return torch.cat(columns, dim=1)


def search_everything(
    model: LanguageModel, prompt: list[int], stops: tuple[int, ...], penalty: float
) -> tuple[list[int], float]:
    news = list(itertools.product(range(V), repeat=NEW))
    scored = {}
    for new, row in zip(news, log_probs(model, prompt, news), strict=True):
        end = next((i + 1 for i, token in enumerate(new) if token in stops), NEW)
        scored[new[:end]] = float(row[:end].sum())
    best = max(scored, key=lambda new: scored[new] / ((5 + len(new)) / 6) ** penalty)
    return [*prompt, *best, *[best[-1]] * (NEW - len(best))], scored[best]


@pytest.mark.parametrize("name", ["bigram", "gpt2"])
@pytest.mark.parametrize(("stops", "penalty"), [((), 0.0), ((2,), 0.0), ((1, 3), 1.0), ((2,), 4.0)])
def test_beam_search_with_enough_beams_is_exhaustive(name: str, stops: tuple[int, ...], penalty: float) -> None:
    model = make(name)
    idx = torch.tensor(list(itertools.product(range(3), repeat=2)))
    model.train()  # dropout must be off even in training mode
    got = beam_search(model, idx, NEW, beams=V**NEW, length_penalty=penalty, stop_tokens=stops)
    assert model.training
    for row, prompt in enumerate(idx.tolist()):
        tokens, best = search_everything(model, prompt, stops, penalty)
        assert got.tokens[row].tolist() == tokens
        assert math.isclose(float(got.log_probs[row]), best, abs_tol=1e-4)
    if not stops:
        greedy = model.generate(idx, NEW, temperature=0)
        assert not torch.equal(got.tokens, greedy), "the test needs prompts for which greedy is not the best"


@pytest.mark.parametrize("name", ["bigram", "gpt2"])
def test_beam_search_with_one_beam_is_greedy(name: str) -> None:
    model, idx = make(name), torch.tensor([[0, 1], [2, 3], [1, 1]])
    assert torch.equal(beam_search(model, idx, 9, beams=1).tokens, model.generate(idx, 9, temperature=0))


def test_beam_search_with_two_beams_beats_greedy() -> None:
    model = lmzoo.create_model("bigram", vocab_size=4)
    with torch.no_grad():  # greedy takes 0 -> 1, but 0 -> 2 -> 3 is more likely in total
        next(model.parameters()).copy_(torch.tensor([[-9, 0.1, 0, -9], [0, 0, 0, 0], [-9, -9, -9, 9], [0, 0, 0, 0.0]]))
    idx = torch.tensor([[0]])
    assert model.generate(idx, 2, temperature=0)[0, 1] == 1
    assert beam_search(model, idx, 2, beams=2).tokens.tolist() == [[0, 2, 3]]


@pytest.mark.parametrize(("second", "expected"), [(0.486, [0, 1, 1]), (0.505, [0, 2, 3])])
def test_beam_search_length_penalty_is_the_published_one(second: float, expected: list[int]) -> None:
    """One token of probability 1/e against two tokens, whose penalty is 7/6: they win above log-probability -7/6."""
    first = math.exp(-1)
    table = [[1e-9, first, 1 - first, 1e-9], [0.25] * 4, [(1 - second) / 2, (1 - second) / 2, 1e-9, second], [0.25] * 4]
    model = lmzoo.create_model("bigram", vocab_size=4)
    with torch.no_grad():
        next(model.parameters()).copy_(torch.tensor(table).log())
    got = beam_search(model, torch.tensor([[0]]), 2, beams=4, length_penalty=1.0, stop_tokens=[1])
    assert got.tokens.tolist() == [expected]


def test_beam_search_refuses_bad_limits() -> None:
    model, idx = make("bigram"), torch.tensor([[0, 1]])
    assert torch.equal(beam_search(model, idx, 0).tokens, idx)
    assert beam_search(model, idx[:0], 3).tokens.shape == (0, 5)
    with pytest.raises(InputError, match="beams=0 must be a positive integer"):
        beam_search(model, idx, 3, beams=0)
    with pytest.raises(InputError, match="idx is an empty prompt"):
        beam_search(model, idx[:, :0], 3)
