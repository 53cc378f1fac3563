"""Masks of finite numbers, which are found at large scores alone, and models that large weights must not fail."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from lmzoo.conformance import Fault, masks, receptive, subject
from lmzoo.model import Traits
from tests.museum.base import Attention, Transformer
from tests.museum.exhibits import running_maximum_from_zero
from tests.museum.sound import stochastic_depth


class Scored(Attention):
    """Attention by hand, in which a masked score is `masked(self, T, S)`."""

    least: ClassVar[float] = -1e4

    def least_here(self, T: int, S: int) -> float:
        return self.least

    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) * q_BTHK.shape[-1] ** -0.5
        scores_BHTS = scores_BHTS.masked_fill(~allowed_TS, self.least_here(*allowed_TS.shape))
        return self.merge(torch.einsum("bhts,bshk->bhtk", scores_BHTS.softmax(-1), v_BSHK))


class InDecodingAlone(Scored):
    def least_here(self, T: int, S: int) -> float:
        return self.least if T < S else -torch.inf


class InTrainingAlone(Scored):
    def least_here(self, T: int, S: int) -> float:
        return self.least if self.training else -torch.inf


def model_of(attention: type[Attention]) -> type[Transformer]:
    return type("Model", (Transformer,), {"attention_class": attention, "__module__": __name__})


@pytest.mark.parametrize("least", [-1e4, -65504.0])
def test_require_causal_finds_a_mask_that_large_scores_outweigh(least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scored, "least", least)
    with pytest.raises(Fault, match=r"in eval mode, with matrices 1000 times as large, .* a mask that is a finite"):
        masks.require_causal(subject(model_of(Scored)))


def test_require_causal_accepts_a_mask_below_all_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scored, "least", -1e9)
    masks.require_causal(subject(model_of(Scored)))


def test_require_causal_tries_train_mode() -> None:
    with pytest.raises(Fault, match="in train mode"):
        masks.require_causal(subject(model_of(InTrainingAlone)))


def test_require_causal_tries_the_large_form_with_one_text() -> None:
    with pytest.raises(Fault, match="position 2 of 300"):
        masks.require_causal(subject(model_of(Scored)).large()[0], brief=True)


def test_require_causal_says_nothing_about_logits_that_are_not_finite() -> None:
    class Overflowing(model_of(Scored)):
        def features(self, idx_BT: Tensor, state: object = None) -> tuple[Tensor, object]:
            x_BTD, state = super().features(idx_BT, state)
            return x_BTD * (self.blocks[0].up.weight.abs().max() > 100).double().log().neg(), state

    masks.require_causal(subject(Overflowing))


def test_require_decoding_finds_a_mask_of_the_cache() -> None:
    masks.require_causal(subject(model_of(InDecodingAlone)))
    with pytest.raises(Fault, match="a chunk of 23 tokens after 1 earlier ones differs from forward"):
        masks.require_decoding(subject(model_of(InDecodingAlone)))


class Normed(InDecodingAlone):
    """Scores depend on no vector: the norm before the attention is undone by one without weights."""

    def forward(self, x_BTD: Tensor, cache: object, position: int) -> tuple[Tensor, object]:
        return super().forward(nn.functional.rms_norm(x_BTD, x_BTD.shape[-1:]), cache, position)


def test_require_decoding_makes_matrices_large() -> None:
    with pytest.raises(Fault, match="with matrices 1000 times as large, a chunk of 23 tokens"):
        masks.require_decoding(subject(model_of(Normed)))


class Windowed(Transformer):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, receptive_field=9, state_growth="constant")


def test_receptive_field_tries_large_weights() -> None:
    class Two(Scored):
        def mask(self, T: int, S: int) -> Tensor:
            behind_TS = torch.arange(S - T, S)[:, None] - torch.arange(S)
            return (behind_TS >= 0) & (behind_TS < 5)

        def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
            scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK)
            past_TS = torch.ones_like(allowed_TS).tril(k_BSHK.shape[1] - q_BTHK.shape[1])
            scores_BHTS = scores_BHTS.masked_fill(~past_TS, -torch.inf) - 1e4 * ~allowed_TS
            return self.merge(torch.einsum("bhts,bshk->bhtk", scores_BHTS.softmax(-1), v_BSHK))

    tried = subject(type("Model", (Windowed,), {"attention_class": Two, "__module__": __name__}))
    assert receptive._require_field(tried, tried.model().double(), 9, 24).endswith("none beyond 9")
    with pytest.raises(Fault, match="changing the first 1 tokens changes the logits 9 tokens later"):
        receptive.receptive_field(tried)


def test_require_causal_leaves_noise_that_is_not_declared_to_other_checks() -> None:
    class Undeclared(stochastic_depth.MODEL):
        @property
        def traits(self) -> Traits:
            return replace(super().traits, random_in_training=False)

    masks.require_causal(subject(Undeclared))


def test_require_decoding_names_what_makes_numbers_that_are_not_finite() -> None:
    with pytest.raises(Fault, match="a number is not finite; look at divisors that may be zero"):
        masks.require_decoding(subject(running_maximum_from_zero.MODEL))
