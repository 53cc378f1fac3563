"""Tests of scores against `forward` for any chunk size, and of the log-probabilities of generated tokens."""

from __future__ import annotations

import pytest
import torch

from lmzoo.errors import InputError
from lmzoo.generation import generate, generate_with_log_probs, score, scoring
from lmzoo.sampling import SamplingConfig
from tests.generation.test_loop import CONTEXT, NAMES, make, prompts


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_score_equals_forward_past_the_context_too(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, idx = make(name).eval(), prompts(3, 2 * CONTEXT + 3)
    monkeypatch.setattr(scoring, "NUMBERS_AT_A_TIME", chunk * 3 * 11)
    got = model.score(idx)
    assert got.shape == (3, 2 * CONTEXT + 2)
    assert got.dtype == torch.float32
    assert not got.requires_grad
    with torch.no_grad():
        for t in range(1, idx.shape[1]):
            logits, _ = model(idx[:, max(0, t - CONTEXT) : t])
            expected = logits[:, -1].log_softmax(-1).gather(1, idx[:, t : t + 1])[:, 0]
            torch.testing.assert_close(got[:, t - 1], expected, rtol=1e-5, atol=1e-5)
    _, loss = model(idx[:, :CONTEXT], idx[:, 1 : CONTEXT + 1])
    assert -got[:, :CONTEXT].mean().item() == pytest.approx(loss.item(), abs=1e-5)


def test_score_bounds_the_logits_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, idx, held = make("bigram"), prompts(2, 50), []
    monkeypatch.setattr(scoring, "NUMBERS_AT_A_TIME", 100)
    handle = model.head.register_forward_hook(lambda module, inputs, logits: held.append(logits.numel()))
    score(model, idx)
    handle.remove()
    assert max(held) <= 100


def test_score_of_one_token_is_empty_and_dropout_is_off() -> None:
    model = make("gpt2").train()
    assert model.score(prompts(2, 1)).shape == (2, 0)
    assert model.score(torch.zeros(0, 4, dtype=torch.long)).shape == (0, 3)
    assert torch.equal(model.score(prompts(2, 6)), model.score(prompts(2, 6)))
    assert model.training
    with pytest.raises(InputError, match="idx is an empty prompt"):
        model.score(prompts(2, 0))
    with pytest.raises(InputError, match="idx holds the id 11"):
        model.score(torch.tensor([[1, 11]]))


@pytest.mark.parametrize("name", NAMES)
def test_generate_with_log_probs_equals_score(name: str) -> None:
    model, idx, config = make(name), prompts(3, 4), SamplingConfig(1.4, top_k=5, repetition_penalty=1.2)
    out = generate_with_log_probs(model, idx, 9, config, top=3, seeds=range(6), n_samples=2)
    assert torch.equal(out.tokens, generate(model, idx, 9, config, seeds=range(6), n_samples=2))
    torch.testing.assert_close(out.log_probs, model.score(out.tokens)[:, 3:], rtol=1e-5, atol=1e-5)
    assert out.top_tokens.shape == out.top_log_probs.shape == (6, 9, 3)
    assert (out.top_log_probs.diff(dim=-1) <= 0).all()
    for n in range(9):
        other = out.tokens[:, : 5 + n].clone()
        other[:, -1] = out.top_tokens[:, n, 2]
        torch.testing.assert_close(model.score(other)[:, -1], out.top_log_probs[:, n, 2], rtol=1e-5, atol=1e-5)
    greedy = generate_with_log_probs(model, idx, 5, SamplingConfig(0.0), top=1)
    assert torch.equal(greedy.top_tokens[:, :, 0], greedy.tokens[:, 4:])


def test_generate_with_log_probs_counts_nothing_after_a_stop_token() -> None:
    model, idx = make("bigram"), prompts(3, 2)
    out = generate_with_log_probs(model, idx, 60, stop_tokens=[4], seeds=range(3), top=2)
    assert torch.equal(out.tokens, generate(model, idx, 60, stop_tokens=[4], seeds=range(3)))
    for row in range(3):
        end = out.tokens[row, 2:].tolist().index(4)
        assert (out.log_probs[row, : end + 1] < 0).all()
        assert (out.log_probs[row, end + 1 :] == 0).all()
    nothing = generate_with_log_probs(model, idx, 0)
    assert nothing.log_probs.shape == (3, 0)
    assert nothing.top_tokens.shape == (3, 0, 0)
    with pytest.raises(InputError, match=r"top=12 must be in \[0, vocab_size=11\]"):
        generate_with_log_probs(model, idx, 3, top=12)


def test_decode_all_is_refused_without_tokens() -> None:
    model = make("gpt2")
    with pytest.raises(InputError, match="idx has T=0 tokens"):
        model.decode_all(prompts(2, 0), model.init_state(2, 3))


def test_generate_with_log_probs_refuses_a_result_that_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"a result of 549755813888 tokens needs .* of memory"):
        generate_with_log_probs(make("bigram"), prompts(1, 2), 1 << 39)
