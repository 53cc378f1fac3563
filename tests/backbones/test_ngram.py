"""The n-gram model compared with its equations in exact rational arithmetic, and with the baselines of comparisons."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import lmzoo
from lmzoo.backbones.ngram import NGramModel
from lmzoo.compare.ngram import NGram
from lmzoo.errors import ConfigError, InputError
from lmzoo.generation import generate, generate_speculative
from lmzoo.model import LanguageModel
from lmzoo.sampling import SamplingConfig

V = 6


def text(T: int, seed: int = 0) -> Tensor:
    """A random text (T,) in which some tokens are much more frequent than others."""
    uniform_T = torch.rand(T, generator=torch.Generator().manual_seed(seed))
    return (uniform_T**2 * V).long()


def fitted(order: int = 3, tokens_T: Tensor | None = None) -> LanguageModel:
    model = lmzoo.create_model("ngram", vocab_size=V, order=order, capacity=2000, context_length=16)
    model.fit((text(300) if tokens_T is None else tokens_T)[None])
    return model.eval()


def estimate(tokens: list[int], h: tuple[int, ...], w: int) -> Fraction:
    """p(w | h) by Witten and Bell's method C, interpolated, from the text itself."""
    after = [tokens[i + len(h)] for i in range(len(tokens) - len(h)) if tuple(tokens[i : i + len(h)]) == h]
    shorter = estimate(tokens, h[1:], w) if h else Fraction(1, V)
    distinct = len(set(after))
    return (Counter(after)[w] + distinct * shorter) / (len(after) + distinct) if after else shorter


@pytest.mark.parametrize("order", [2, 3, 4])
def test_ngram_logits_equal_exact_rational_arithmetic(order: int) -> None:
    tokens, idx = text(300).tolist(), text(12, seed=1)
    logits_TV = fitted(order)(idx[None]).logits[0]
    for t in range(12):
        h = tuple(idx[max(0, t - order + 2) : t + 1].tolist())
        expected = [math.log(estimate(tokens, h, w)) for w in range(V)]
        assert logits_TV[t].tolist() == pytest.approx(expected, rel=1e-6)


def test_ngram_loss_is_that_of_the_baseline() -> None:
    train, val = text(300), text(64, seed=2)
    model, baseline = fitted(4), NGram(train.numpy(), V, 4)
    windows = val[:-15].view(-1, 7)  # seven windows of six targets
    found = model(windows[:, :-1], windows[:, 1:]).loss.item()
    losses = [-np.log(baseline.probabilities(window.numpy())[1:]).mean() for window in windows]
    assert found == pytest.approx(np.mean(losses), rel=1e-6)


def test_ngram_loads_with_its_counts(tmp_path: Path) -> None:
    model = fitted()
    model.save(tmp_path / "saved")
    again = lmzoo.load_model(tmp_path / "saved")
    idx = text(16, seed=3)[None]
    assert torch.equal(again(idx).logits, model(idx).logits)
    assert not torch.equal(again(idx).logits, lmzoo.create_model("ngram", vocab_size=V)(idx).logits)


def test_ngram_decodes_from_contexts_alone() -> None:
    model, idx = fitted(), text(40, seed=4)[None]
    _, state = model.decode(idx, model.init_state(1))
    assert lmzoo.state.nbytes(state) == model.state_bytes(1000) == 3 * 8
    _, same = model.decode(idx[:, -2:], model.init_state(1))
    assert torch.equal(state["layers"], same["layers"]), "two tokens are all that a 3-gram sees"


def test_ngram_is_a_draft_of_another_model() -> None:
    model = lmzoo.create_model("gpt2", vocab_size=V, d_model=16, n_layers=1, n_heads=2, context_length=32)
    prompt, greedy = text(5, seed=5)[None], SamplingConfig(0.0)
    expected = generate(model, prompt, 20, greedy)
    assert torch.equal(generate_speculative(model, fitted(), prompt, 20, greedy), expected)
    assert torch.equal(
        generate_speculative(fitted(), model, prompt, 20, greedy), generate(fitted(), prompt, 20, greedy)
    )


def test_ngram_samples_follow_the_estimates() -> None:
    generator = torch.Generator().manual_seed(0)
    model, prompt = fitted(), text(3, seed=6)[None]
    drawn = model.generate(prompt.repeat(20_000, 1), 1, generator=generator)[:, -1]
    expected_V = model(prompt).logits[0, -1].exp()
    torch.testing.assert_close(drawn.bincount(minlength=V) / 20_000, expected_V, atol=0.012, rtol=0)


def test_ngram_config_refuses_sizes_that_make_no_table() -> None:
    for settings, message in (
        ({"order": 1}, r"order=1 must be in \[2, 16\]"),
        ({"order": 17}, r"order=17 must be in \[2, 16\]"),
        ({"capacity": 0}, "capacity=0 must be a positive integer"),
    ):
        with pytest.raises(ConfigError, match=message):
            lmzoo.create_model("ngram", vocab_size=V, **settings)


def test_ngram_fit_refuses_what_are_no_rows_of_ids() -> None:
    model = fitted()
    with pytest.raises(InputError, match=r"tokens_BT holds the id 6: ids must be in \[0, vocab_size=6\)"):
        model.fit(torch.tensor([[0, 6]]))
    with pytest.raises(InputError, match=r"tokens_BT is torch.int64 of shape \(3,\): it must be int64 of shape"):
        model.fit(torch.tensor([0, 1, 2]))
    model.fit(torch.zeros(2, 0, dtype=torch.int64))
    assert torch.allclose(model(text(4)[None]).logits, torch.tensor(1 / V).log()), "nothing was counted"


def test_ngram_has_nothing_to_train() -> None:
    model = fitted()
    assert isinstance(model, NGramModel)
    assert (model.num_params(), model.traits.trainable, model.device.type) == (0, False, "cpu")
    assert not model(text(8)[None], text(8)[None]).loss.requires_grad
