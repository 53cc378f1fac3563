"""Tests of masks, positions and labels as transformers gives them. 9 stands for the id of padding."""

from __future__ import annotations

import pytest
import torch

from lmzoo.errors import InputError
from lmzoo.hf.padding import at, check_positions, new_mask, next_labels, padding_last

IDX = torch.tensor([[9, 9, 1, 2], [3, 9, 4, 9]])
MASK = IDX != 9


def test_new_mask_is_the_part_for_the_new_columns() -> None:
    past = torch.tensor([[False, True], [True, True]])
    whole = torch.cat([past, MASK], dim=1).long()
    found = new_mask(IDX, whole, past)
    assert found is not None
    assert torch.equal(found, MASK)
    assert new_mask(IDX, None, past) is None
    assert new_mask(IDX, torch.cat([past, torch.ones(2, 4)], dim=1), past) is None  # all new columns are tokens
    with pytest.raises(InputError, match=r"shape \(2, 4\): it must be \(2, 6\), earlier columns included$"):
        new_mask(IDX, MASK, past)
    with pytest.raises(InputError, match="differs from the one"):
        new_mask(IDX, torch.ones(2, 6), past)


def test_check_positions_allows_those_of_the_model_alone() -> None:
    past = torch.tensor([[False, True], [True, True]])
    check_positions(IDX, None, MASK, past)
    check_positions(IDX, torch.arange(4)[None], None, None)
    check_positions(IDX, torch.tensor([[0, 0, 1, 2], [2, 0, 3, 0]]), MASK, past)
    for wrong in (torch.arange(4)[None], torch.arange(4), torch.arange(3)[None], torch.zeros(3, 4)):
        with pytest.raises(InputError, match="position_ids must count"):
            check_positions(IDX, wrong, MASK, past)


def test_next_labels_shift_and_ignore_the_first_token_after_padding() -> None:
    labels = torch.tensor([[-100, -100, 1, 2], [3, -100, 4, -100]])
    assert next_labels(labels, None).tolist() == [[-100, 1, 2, -100], [-100, 4, -100, -100]]
    assert next_labels(labels, MASK).tolist() == [[-100, -100, 2, -100], [-100, -100, -100, -100]]


def test_padding_last_keeps_the_order_of_tokens() -> None:
    idx, order = padding_last(IDX, MASK)
    assert idx.tolist() == [[1, 2, 0, 0], [3, 4, 0, 0]]
    assert torch.equal(IDX.gather(1, order), torch.tensor([[1, 2, 9, 9], [3, 4, 9, 9]]))


def test_at_picks_places_of_each_row() -> None:
    x = torch.arange(12).view(2, 3, 2)
    assert at(x, torch.tensor([[0, 0], [2, 1]])).tolist() == [[[0, 1], [0, 1]], [[10, 11], [8, 9]]]
