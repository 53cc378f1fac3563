"""Decoding in splits, compared with one forward pass."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import Fault, check_model, decoding, subject
from lmzoo.conformance.decoding import (
    check_all_positions,
    check_split,
    decode_chunks,
    decode_steps,
    expected_logits,
    random_split,
)
from lmzoo.state import State
from tests.museum.base import Attention, Learned, Transformer


def test_decode_steps_and_chunks_give_the_logits_of_every_position() -> None:
    model = subject(Learned).model().double()
    idx = subject(Learned).tokens(2, 9)
    steps_BTV, state = decode_steps(model, idx[:, :5], model.init_state(2, 9))
    more_BTV, _ = decode_steps(model, idx[:, 5:], state)
    for found_BTV in (torch.cat([steps_BTV, more_BTV], dim=1), decode_chunks(model, idx, [4, 5])):
        assert torch.allclose(found_BTV, model(idx).logits, atol=1e-9)


def test_random_split_adds_up() -> None:
    chooser = random.Random(0)
    for total in (1, 9, 51):
        split = random_split(chooser, total, 9)
        assert sum(split) == total
        assert all(1 <= n <= 9 for n in split)


def test_check_split_and_check_all_positions_allow_only_rounding() -> None:
    for cls in (Transformer, Learned):
        checked = subject(cls)
        model, idx = checked.model().double(), checked.tokens(2, 30)
        expected_BTV = expected_logits(checked, model, idx)
        assert expected_BTV.shape == (2, 30, 13)
        assert check_split(model, idx, expected_BTV, [20, 1, 9]) < 1e-9
        assert check_all_positions(model, idx, expected_BTV, [20, 1, 9]) < 1e-9


def test_splits_are_of_the_context_or_the_whole_text_with_each_short_first_chunk() -> None:
    plain, brief = (decoding._splits(24, 51, random.Random(0), brief=brief) for brief in (False, True))
    assert {sum(split) for _, split in plain + brief} == {24, 51}
    firsts = [split[0] for rows, split in plain if rows == 2 and sum(split) == 24]
    assert {*range(1, 10), 23, 24} <= set(firsts)
    assert len(set(firsts)) == len(firsts), "none is tried twice"


class ForgetsForOneRow(Attention):
    def remember(self, cache: Any, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Any]:
        k, v, after = super().remember(cache, k, v)
        return (k[:, 1:], v[:, 1:], after) if len(k) == 1 and k.shape[1] > 30 else (k, v, after)


class OneRow(Transformer):
    attention_class = ForgetsForOneRow


def test_decoding_tries_a_batch_of_one_row() -> None:
    result = check_model(OneRow, only=["decoding"]).results[0]
    assert result.saw.startswith("decoded in chunks of [23, 2, 26] (batch of 1), position 50 is off by")


def test_decoding_says_the_largest_difference_of_all_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "check_split", lambda *_: 0.5)
    assert "off by at most 0.5;" in check_model(Transformer, only=["decoding"]).results[0].saw


class Restarting(Attention):
    """In decoding positions begin again at the context length of 24."""

    def positions(self, position: int, T: int, cache: object) -> int:
        return position if cache is None else position % 24


class Scaling(Attention):
    """Decoding scales what is mixed."""

    def forward(self, x_BTD: Tensor, cache: object, position: int) -> tuple[Tensor, object]:
        y_BTD, after = super().forward(x_BTD, cache, position)
        return (y_BTD if cache is None else 1.01 * y_BTD), after


@pytest.mark.parametrize(
    ("attention", "says"),
    [
        (Restarting, "; the first position that differs is 24: all before context_length=24 agree"),
        (Scaling, "; the first call alone differs from position 0 on: compare what features() computes with a state"),
    ],
)
def test_check_split_says_where_it_begins_to_differ(attention: type[Attention], says: str) -> None:
    model = subject(type("Model", (Transformer,), {"attention_class": attention, "__module__": __name__})).model()
    idx = torch.randint(13, (1, 30), generator=torch.Generator().manual_seed(0))
    model.double()
    with torch.no_grad(), pytest.raises(Fault) as fault:
        decoding.check_split(model, idx, model(idx).logits, [12, 6, *[1] * 12])
    assert says in str(fault.value)


def test_decode_chunks_carries_the_state_from_chunk_to_chunk() -> None:
    lengths: list[int] = []

    class Noting(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            lengths.append(idx_BT.shape[1])
            return super().features(idx_BT, state)

    checked = subject(Noting)
    model, idx = checked.model().double(), checked.tokens(2, 10)
    with torch.no_grad():
        torch.testing.assert_close(decode_chunks(model, idx, 4), model(idx).logits)
    assert lengths == [4, 4, 2, 10]
