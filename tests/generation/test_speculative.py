"""Tests of speculative decoding: greedy equals the model alone, sampling has its distribution."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

import lmzoo
from lmzoo.compare.ngram import NGram
from lmzoo.errors import InputError
from lmzoo.generation import (
    NGramDraft,
    PromptLookup,
    generate,
    generate_speculative,
    speculative,
    stream_speculative,
)
from lmzoo.generation.drafts import Draft
from lmzoo.model import LanguageModel
from lmzoo.sampling import SamplingConfig, process
from tests.helpers import far_from_uniform

V, NEW, DRAWS = 3, 3, 20_000
# Chi-square with 26 degrees of freedom exceeds this once in 10,000 seeds for a correct sampler. A sampler whose
# probabilities are wrong by 8 % (root mean square of relative errors, weighted by probability) has a noncentrality of
# 128 with 20,000 draws and exceeds it with probability 0.9999.
THRESHOLD = 61.9


@functools.cache
def make(name: str, vocab_size: int = V, context_length: int = 8, seed: int = 1) -> LanguageModel:
    """A small model whose distribution is far from uniform."""
    sizes = {"gpt2": {"d_model": 8, "n_layers": 1, "n_heads": 2}, "mamba": {"d_model": 8, "n_layers": 1}}
    model = lmzoo.create_model(name, vocab_size=vocab_size, context_length=context_length, **sizes.get(name, {}))
    return far_from_uniform(model, std=0.6, seed=seed).eval()


def drafts(vocab_size: int) -> dict[str, Draft]:
    ids = np.random.default_rng(0).integers(0, vocab_size, 300)
    return {
        "bigram": make("bigram", vocab_size),
        "itself": make("gpt2", vocab_size),
        "another": make("mamba", vocab_size, seed=5),
        "n-gram": NGramDraft(NGram(ids, vocab_size, order=3)),
        "lookup": PromptLookup(vocab_size),
    }


@torch.no_grad()
def exact(model: LanguageModel, prompt: list[int], config: SamplingConfig) -> Tensor:
    """The probability of each continuation of NEW tokens, by the chain rule over the distributions of `process`."""
    found = []
    for tokens in itertools.product(range(V), repeat=NEW):
        log_prob = 0.0
        for n, token in enumerate(tokens):
            seen = torch.tensor([[*prompt, *tokens[:n]]])
            log_prob += float(process(model(seen).logits[:, -1], config, seen).log_softmax(-1)[0, token])
        found.append(math.exp(log_prob))
    return torch.tensor(found, dtype=torch.float64)


def chi_square(draft: Draft, config: SamplingConfig, seed: int = 0) -> float:
    """The chi-square statistic of the continuations of DRAWS rows against the exact distribution."""
    model, prompt = make("gpt2"), [0, 2]
    idx = torch.tensor([prompt]).expand(DRAWS, 2)
    generator = torch.Generator().manual_seed(seed)
    out = generate_speculative(model, draft, idx, NEW, config, n_guesses=2, generator=generator)
    outcome_B = (out[:, 2:] * torch.tensor([V ** (NEW - 1 - n) for n in range(NEW)])).sum(1)
    expected = DRAWS * exact(model, prompt, config)
    assert expected.min() > 5, "every outcome must be expected a few times"
    return float(((outcome_B.bincount(minlength=V**NEW) - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("name", ["bigram", "another", "n-gram", "lookup"])
def test_speculative_sampling_has_the_distribution_of_the_model(name: str) -> None:
    assert chi_square(drafts(V)[name], SamplingConfig(1.3)) < THRESHOLD


def test_speculative_sampling_with_penalties_has_the_distribution_of_the_model() -> None:
    assert chi_square(drafts(V)["bigram"], SamplingConfig(1.5, repetition_penalty=1.3)) < THRESHOLD


def keep_all(p: Tensor, q: Tensor, guess: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return guess


def rest_is_p(p: Tensor, q: Tensor, guess: Tensor, u: Tensor, v: Tensor) -> Tensor:
    kept = u * q.gather(1, guess[:, None])[:, 0] < p.gather(1, guess[:, None])[:, 0]
    return torch.where(kept, guess, speculative.draw(p, v))


def half_as_willing(p: Tensor, q: Tensor, guess: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return judge(p, 2 * q, guess, u, v)


judge = speculative.judge


@pytest.mark.parametrize("rule", [keep_all, rest_is_p, half_as_willing])
def test_chi_square_detects_wrong_acceptance_rules(rule: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speculative, "judge", rule)
    assert chi_square(drafts(V)["bigram"], SamplingConfig(1.3)) > 2 * THRESHOLD


@pytest.mark.parametrize("name", ["bigram", "itself", "n-gram", "lookup"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_speculative_tokens_do_not_depend_on_other_rows_or_the_number_of_draft_tokens(
    name: str, temperature: float
) -> None:
    model, draft, config = make("gpt2", 7), drafts(7)[name], SamplingConfig(temperature)
    idx = torch.randint(7, (4, 3), generator=torch.Generator().manual_seed(2))
    seeds = [3, 1, 4, 1]
    expected = generate_speculative(model, draft, idx, 12, config, n_guesses=1, seeds=seeds)
    for n_guesses in (2, 5, 40):
        assert torch.equal(
            generate_speculative(model, draft, idx, 12, config, n_guesses=n_guesses, seeds=seeds), expected
        )
    for row, seed in enumerate(seeds):
        alone = generate_speculative(model, draft, idx[row : row + 1], 12, config, n_guesses=3, seeds=[seed])
        assert torch.equal(alone[0], expected[row])


@pytest.mark.parametrize("name", list(drafts(7)))
def test_speculative_greedy_equals_the_model_alone_also_past_the_context(name: str) -> None:
    model, idx = make("gpt2", 7), torch.randint(7, (3, 3), generator=torch.Generator().manual_seed(4))
    plain = generate(model, idx, 20, SamplingConfig(0.0))[:, 3:].tolist()
    assert len({row.index(6) for row in plain}) > 1, "the test needs rows that stop at different places"
    for stop_tokens in ((), (6,)):
        expected = generate(model, idx, 20, SamplingConfig(0.0), stop_tokens=stop_tokens)
        got = generate_speculative(
            model, drafts(7)[name], idx, 20, SamplingConfig(0.0), n_guesses=4, stop_tokens=stop_tokens
        )
        assert torch.equal(got, expected)
    assert torch.equal(generate_speculative(model, drafts(7)[name], idx, 0), idx)


def test_speculative_good_draft_saves_passes_and_bad_draft_costs_one_each() -> None:
    model, idx = make("gpt2", 7, context_length=64), torch.tensor([[1, 2, 3]])
    greedy = SamplingConfig(0.0)
    itself = list(stream_speculative(model, model, idx, 21, greedy, n_guesses=4))
    assert [block.shape[1] for block in itself] == [4, 4, 4, 4, 4, 1], "all kept"
    bad = list(stream_speculative(model, PromptLookup(7, max_ngram=1), idx, 21, greedy, n_guesses=4))
    assert sum(block.shape[1] for block in bad) == 21
    sampled = list(stream_speculative(model, model, idx, 21, n_guesses=4, seeds=[1]))
    assert [block.shape[1] for block in sampled] == [4, 4, 4, 4, 4, 1], "p / q is 1: nothing is refused"


def test_speculative_refuses_bad_input() -> None:
    model, idx = make("gpt2", 7), torch.tensor([[1]])
    with pytest.raises(InputError, match="n_guesses=0 must be a positive integer"):
        stream_speculative(model, model, idx, 5, n_guesses=0)
    with pytest.raises(InputError, match="vocab_size=7, the draft 9: they must have the same tokens"):
        generate_speculative(model, PromptLookup(9), idx, 5)
    with pytest.raises(InputError, match="idx is an empty prompt"):
        stream_speculative(model, model, idx[:, :0], 5)


def test_speculative_restores_the_modes() -> None:
    model, draft = make("gpt2", 7).train(), make("bigram", 7).train()
    generate_speculative(model, draft, torch.tensor([[1, 2]]), 6)
    assert model.training
    assert draft.training
    model.eval()
    draft.eval()
