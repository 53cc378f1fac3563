"""Tests of all features of the sampler on families with every kind of state: none may depend on the architecture.

The sampler uses `decode`, `decode_all` and the functions of `lmzoo.state`, which the conformance checks prove for every
family: any split gives the logits of `forward`, and a state can be cloned, selected by row, saved and loaded.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lmzoo import registry, state
from lmzoo.conformance import Subject, subject
from lmzoo.conformance.decoding import expected_logits
from lmzoo.generation import (
    NGramDraft,
    PromptLookup,
    beam_search,
    generate,
    generate_ragged,
    generate_speculative,
    generate_with_log_probs,
    stream,
)
from lmzoo.generation.drafts import Draft
from lmzoo.model import LanguageModel
from lmzoo.sampling import SamplingConfig

# Together they have every kind of state: see the first test. gpt2 slides a window, llama and mamba are widely used.
FAMILIES = ["bigram", "engram", "gpt2", "griffin", "hnet", "hyena", "llama", "log_linear", "mamba", "ngram", "sparse"]
GREEDY, WARM = SamplingConfig(0.0), SamplingConfig(1.2, top_p=0.9, repetition_penalty=1.1)


@cache
def small(family: str) -> Subject:
    return subject(family)


@cache
def model_of(family: str) -> LanguageModel:
    return small(family).model()


@cache
def sequence_of(family: str) -> tuple[Tensor, Tensor]:
    """Return tokens (2, T + 6), longer than the context, and the logits that `forward` gives at each position."""
    idx = small(family).tokens(2, small(family).context + 6)
    return idx, expected_logits(small(family), model_of(family), idx)


def kinds_of_state(family: str) -> set[Any]:
    """Return the traits of a family, and for each leaf of its state the type, the kind of numbers and the window."""
    traits = model_of(family).traits
    facts = ("state_growth", "extrapolates", "chooses", "data_dependent_shapes", "trainable", "random_in_training")
    kinds: set[Any] = {(fact, getattr(traits, fact)) for fact in facts}
    for leaf in state.leaves_of(model_of(family).init_state(1)["layers"]):
        numbers = leaf if isinstance(leaf, Tensor) else getattr(leaf, "data", None)
        floats = numbers is not None and numbers.is_floating_point()
        kinds.add((type(leaf), floats, getattr(leaf, "window", None) is not None))
    return kinds


def test_families_have_every_kind_of_state() -> None:
    some, every = (set().union(*map(kinds_of_state, families)) for families in (FAMILIES, registry.families()))
    assert every - some == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_decode_all_gives_every_position_at_any_split(family: str) -> None:
    model, T = model_of(family), small(family).context
    idx, expected_BTV = sequence_of(family)
    for split in ([T + 5], [3, T - 1, 3]):  # the check `decoding` has many more
        current, pieces, end = model.init_state(2, T), [], 0
        for n in split:
            logits_BTV, current = model.decode_all(idx[:, end : end + n], current)
            assert logits_BTV.shape == (2, n, small(family).config.vocab_size)
            pieces.append(logits_BTV)
            end += n
        whole_BTV = torch.cat(pieces, dim=1)
        torch.testing.assert_close(whole_BTV, expected_BTV[:, :-1], rtol=1e-4, atol=1e-4)
        more_BV, _ = model.decode(idx[:, -1:], current)
        torch.testing.assert_close(more_BV, expected_BTV[:, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_score_equals_the_log_probabilities_of_forward(family: str) -> None:
    model, T = model_of(family), small(family).context
    idx, logits_BTV = sequence_of(family)
    expected = logits_BTV[:, :-1].log_softmax(-1).gather(2, idx[:, 1:, None])[..., 0]
    torch.testing.assert_close(model.score(idx), expected, rtol=1e-4, atol=1e-4)
    out = generate_with_log_probs(model, idx[:, :4], T, WARM, seeds=[1, 2], top=2)
    torch.testing.assert_close(out.log_probs, model.score(out.tokens)[:, 3:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_generate_ragged_equals_each_prompt_alone(family: str) -> None:
    model, tokens = model_of(family), small(family).tokens(3, 9)
    rows = [tokens[0, :2], tokens[1, :9], tokens[2, :4]]
    configs = [WARM, GREEDY, WARM, SamplingConfig(0.7, min_p=0.05), GREEDY, WARM]
    together = generate_ragged(model, rows, 6, configs, n_samples=2, seeds=range(6), stop_tokens=[5])
    for number, got in enumerate(together):
        idx = rows[number // 2][None]
        alone = generate(model, idx, 6, configs[number], seeds=[number], stop_tokens=[5])
        assert torch.equal(got, alone[0])
    assert torch.equal(torch.stack(list(stream(model, tokens, 6, WARM, seeds=range(3))), 1), _new(model, tokens))


def _new(model: LanguageModel, idx: Tensor) -> Tensor:
    return generate(model, idx, 6, WARM, seeds=range(3))[:, 9:]


@pytest.mark.parametrize("family", FAMILIES)
def test_beam_search_with_all_beams_finds_the_most_likely(family: str) -> None:
    model = small(family).model(vocab_size=4)
    idx = torch.tensor([[1, 3, 0]])
    found = beam_search(model, idx, 3, beams=64)
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)
    scores = model.score(torch.cat([idx.expand(64, 3), every], dim=1))[:, 2:].sum(1)
    assert found.log_probs.item() == pytest.approx(scores.max().item(), abs=1e-4)
    assert scores[(every == found.tokens[0, 3:]).all(1)].item() == pytest.approx(scores.max().item(), abs=1e-4)
    greedy = beam_search(model, idx, 5, beams=1).tokens
    assert torch.equal(greedy, generate(model, idx, 5, GREEDY))


def drafts(vocab_size: int) -> dict[str, Draft]:
    import numpy as np

    from lmzoo.compare.ngram import NGram

    counted = NGram(np.random.default_rng(0).integers(0, vocab_size, 500), vocab_size, order=3)
    return {"bigram": model_of("bigram"), "n-gram": NGramDraft(counted), "lookup": PromptLookup(vocab_size)}


@pytest.mark.parametrize("family", FAMILIES)
def test_speculative_greedy_equals_the_model_alone_with_any_draft(family: str) -> None:
    model, T = model_of(family), small(family).context
    idx = small(family).tokens(3, T - 6)
    expected = generate(model, idx, 12, GREEDY)  # past the context too
    found = drafts(model.config.vocab_size)
    # Both are nearly always rejected, so one is enough for a family; a lookup is accepted in part, the model always.
    del found["n-gram" if FAMILIES.index(family) % 2 else "bigram"]
    for name, draft in [*found.items(), ("itself", model)]:
        assert torch.equal(generate_speculative(model, draft, idx, 12, GREEDY, n_guesses=3), expected), name


@pytest.mark.parametrize("family", FAMILIES)
def test_speculative_sampling_does_not_depend_on_the_number_of_draft_tokens(family: str) -> None:
    """So the tests of the distribution with one draft token per pass hold for any number."""
    model, idx = model_of(family), small(family).tokens(2, 5)
    draft = model_of("bigram")
    expected = generate_speculative(model, draft, idx, 10, WARM, n_guesses=1, seeds=[1, 2])
    assert torch.equal(generate_speculative(model, draft, idx, 10, WARM, n_guesses=4, seeds=[1, 2]), expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("read", [5, 40])  # inside the context, and past it
def test_prefix_saved_and_loaded_continues_bitwise_equal(family: str, read: int, tmp_path: Path) -> None:
    for variant in [small(family), *small(family).varied()]:
        model, idx = variant.model(), variant.tokens(2, read + 1)
        _, prefix = model.decode(idx[:, :read], model.init_state(2, read + 8))
        state.save(tmp_path / "prefix", prefix)
        if not variant.is_variant:
            generated = generate(model, idx, 7, WARM, seeds=[3, 4])
            again = state.load(tmp_path / "prefix", like=prefix)
            assert torch.equal(generate(model, idx, 7, WARM, seeds=[3, 4], prefix=again), generated)
        loaded = state.load(tmp_path / "prefix", like=model.init_state(1))
        for token in (idx[:, -1:], idx[:, :1], idx[:, 1:2]):
            logits_BV, prefix = model.decode(token, prefix)
            again_BV, loaded = model.decode(token, loaded)
            assert torch.equal(logits_BV, again_BV)
