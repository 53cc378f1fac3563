"""Logits that decoding must give, also where the length of a text changes what is computed for its first tokens."""

from __future__ import annotations

import pytest
import torch

from lmzoo.conformance import Fault, check_model, subject
from lmzoo.conformance.lengths import comparable, depends_on_length, expected_logits, require_changes
from tests.museum.base import Learned, Transformer
from tests.museum.exhibits import reads_again_for_nothing, squeezed_positions_not_declared
from tests.museum.sound import other_positions_past_a_length, positions_squeezed_into_a_length

SQUEEZED, STEP = positions_squeezed_into_a_length.MODEL, other_positions_past_a_length.MODEL


@pytest.mark.parametrize("cls", [Transformer, Learned, SQUEEZED, STEP])
def test_expected_logits_are_those_of_the_text_up_to_each_position(cls: type) -> None:
    checked = subject(cls)
    model, idx = checked.model().double(), checked.tokens(2, 30)
    expected_BTV = expected_logits(checked, model, idx)
    assert not expected_BTV.requires_grad
    for length in (1, 9, 10, 11, 24, 30):
        seen = idx[:, :length] if model.traits.extrapolates else idx[:, max(0, length - 24) : length]
        assert torch.allclose(expected_BTV[:, length - 1], model(seen).logits[:, -1])


def test_expected_logits_leaves_out_texts_that_are_not_needed() -> None:
    checked = subject(SQUEEZED)
    model, idx = checked.model().double(), checked.tokens(2, 30)
    some_BTV, all_BTV = expected_logits(checked, model, idx, {12, 30}), expected_logits(checked, model, idx)
    assert torch.equal(some_BTV[:, [0, 8, 11, 29]], all_BTV[:, [0, 8, 11, 29]])
    assert some_BTV[:, [9, 10, 12, 28]].isnan().all()


def test_comparable_and_depends_on_length_follow_the_declaration() -> None:
    squeezed, step, plain = (subject(cls).model() for cls in (SQUEEZED, STEP, Transformer))
    assert [depends_on_length(model) for model in (squeezed, step, plain)] == [True, True, False]
    assert [comparable(model, 9, 10) for model in (squeezed, step, plain)] == [False, False, True]
    assert [comparable(model, 10, 99) for model in (squeezed, step, plain)] == [False, True, True]
    assert comparable(squeezed, 3, 9)


def test_require_changes_wants_one_length_that_changes_earlier_logits() -> None:
    for cls in (SQUEEZED, reads_again_for_nothing.MODEL):
        checked = subject(cls)
        model, idx = checked.model().double(), checked.tokens(2, 30)
        logits_BTV = model(idx).logits
        if cls is SQUEEZED:
            require_changes(model, idx, logits_BTV, [29, 12])
        else:
            with pytest.raises(Fault, match=r"same_until\(29\) is 29, as if a text of 30 tokens changed"):
                require_changes(model, idx, logits_BTV, [29, 12])


def test_a_failing_causality_names_the_missing_declaration() -> None:
    result = check_model(squeezed_positions_not_declared.MODEL, only=["causality"]).results[0]
    assert "positions without `same_until`" in result.saw
