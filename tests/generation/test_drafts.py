"""Tests of drafts: prompt lookup and counted n-grams predict the tokens that they should."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lmzoo.compare.ngram import NGram
from lmzoo.errors import InputError
from lmzoo.generation import (
    NGramDraft,
    PromptLookup,
    generate_speculative,
)
from lmzoo.sampling import SamplingConfig
from tests.generation.test_speculative import make


def test_prompt_lookup_predicts_what_followed_before() -> None:
    lookup = PromptLookup(9)

    def guess(*tokens: int) -> int:
        logits_BV, _ = lookup.decode(torch.tensor([tokens]), lookup.init_state(1))
        return int(logits_BV[0].argmax())

    assert guess(1, 2, 3, 4, 1, 2) == 3
    assert guess(1, 2, 3, 0, 2, 5, 1, 2) == 3, "the longer match counts, not the later"
    assert guess(2, 3, 2, 4, 2) == 4, "the latest of equal ones"
    assert guess(1, 2, 3) == 3, "no match: the last token again"
    state = lookup.init_state(1)
    for token in (1, 2, 3, 4, 1, 2):  # one token at a time, and again from an earlier state
        before = state
        logits_BV, state = lookup.decode(torch.tensor([[token]]), state)
    assert int(logits_BV[0].argmax()) == 3
    assert int(lookup.decode(torch.tensor([[4]]), before)[0][0].argmax()) == 1
    banned = generate_speculative(
        make("gpt2", 9),
        lookup,
        torch.tensor([[1, 2, 3, 1, 2]]),
        8,
        SamplingConfig(logit_bias={3: -math.inf}),
        seeds=[0],
    )
    assert 3 not in banned[0, 5:].tolist()


def test_ngram_draft_has_the_probabilities_of_the_counts() -> None:
    ids = np.random.default_rng(1).integers(0, 5, 400)
    ngram = NGram(ids, 5, order=3)
    draft = NGramDraft(ngram)
    logits_BV, state = draft.decode(torch.tensor([[0, 1, 2], [3, 3, 4]]), draft.init_state(2))
    for row, tokens in enumerate(([1, 2], [3, 4])):
        for token in range(5):
            p = ngram.probabilities(np.array([*tokens, token]))[2]
            assert logits_BV[row, token].exp().item() == pytest.approx(p, rel=1e-12)
    assert state.tolist() == [[1, 2], [3, 4]]
    one = NGramDraft(NGram(ids, 5, order=1))
    logits_BV, _ = one.decode(torch.tensor([[3]]), one.init_state(1))
    assert logits_BV[0].exp().sum().item() == pytest.approx(1)


def test_prompt_lookup_refuses_max_ngram_below_one() -> None:
    with pytest.raises(InputError, match="max_ngram=0"):
        PromptLookup(9, max_ngram=0)
