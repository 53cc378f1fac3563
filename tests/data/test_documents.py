"""Tests the rows of isolated documents: each target once, none across a beginning, the losses of documents alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lmzoo import registry
from lmzoo.conformance import subject
from lmzoo.data.documents import (
    Pieces,
    count_targets,
    cut,
    padded,
    require_targets,
    split_batches,
    split_windows,
    widths,
)
from lmzoo.data.store import TokenSplit
from lmzoo.errors import ConfigError, DataError
from lmzoo.losses import IGNORE_INDEX, cross_entropy

SIZES = [5, 1, 0, 24, 2, 9, 10, 3, 17, 8, 8, 4]


def split_of(sizes: list[int], tokens: np.ndarray | None = None) -> TokenSplit:
    """Return isolated documents of these sizes; their tokens equal their places unless they are given."""
    tokens = np.arange(sum(sizes), dtype=np.uint16) if tokens is None else tokens
    return TokenSplit("sea", "val", tokens, tokens.size, tokens.size, tokens.size, np.cumsum(sizes))


def firsts(sizes: list[int]) -> set[int]:
    return {int(end) - size for end, size in zip(np.cumsum(sizes), sizes, strict=True) if size}


@pytest.mark.parametrize("context_length", [1, 3, 8, 100])
def test_cut_has_each_token_but_the_first_of_a_document_once_as_a_target(context_length: int) -> None:
    pieces = cut(np.cumsum(SIZES), context_length)
    targets: list[int] = []
    for start, count in zip(pieces.start_N, pieces.targets_N, strict=True):
        assert 1 <= count <= context_length
        targets += range(start + 1, start + 1 + count)
        assert not firsts(SIZES) & set(range(start + 1, start + 1 + count)), "a row is in one document"
    assert targets == sorted(set(range(sum(SIZES))) - firsts(SIZES))


def test_pieces_first_have_as_many_targets() -> None:
    pieces = Pieces(np.array([0, 9, 20]), np.array([4, 6, 5]))
    for count, expected in ((1, [1]), (4, [4]), (5, [4, 1]), (15, [4, 6, 5]), (99, [4, 6, 5])):
        assert pieces.first(count).targets_N.tolist() == expected
        assert len(pieces.first(count).start_N) == len(expected)


@pytest.mark.parametrize(("context_length", "expected"), [(256, range(32, 257, 32)), (8, range(1, 9)), (3, [1, 2, 3])])
def test_widths_end_at_the_context_length(context_length: int, expected: list[int]) -> None:
    assert widths(context_length) == [*expected]
    assert widths(100) == [13, 25, 38, 50, 63, 75, 88, 100]


def test_padded_rows_hold_inputs_and_targets_then_padding() -> None:
    rows = padded(np.arange(10), np.array([2, 7]), np.array([3, 1]), 4)
    assert rows.tolist() == [[2, 3, 4, 5, IGNORE_INDEX], [7, 8, *3 * [IGNORE_INDEX]]]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("tokens", [None, 1, 40])
def test_split_batches_have_every_target_of_isolated_documents_once(batch_size: int, tokens: int | None) -> None:
    split, seen = split_of(SIZES), list[int]()
    for idx_BT, targets_BT in split_batches(split, batch_size, 8, tokens):
        assert idx_BT.dtype == targets_BT.dtype == torch.int64
        assert idx_BT.numel() <= batch_size * 8
        kept = targets_BT != IGNORE_INDEX
        assert torch.equal(targets_BT[kept], idx_BT[kept] + 1)
        assert torch.equal(kept, kept.cummin(dim=1).values), "padded on the right"
        seen += targets_BT[kept].tolist()
    whole = sorted(set(range(sum(SIZES))) - firsts(SIZES))
    assert sorted(seen) == whole[:tokens]
    assert count_targets(split, tokens) == len(seen)


def test_split_batches_of_joined_documents_are_windows() -> None:
    joined = TokenSplit("sea", "val", np.arange(20), 20, 20, 20)
    batches = list(split_batches(joined, 2, 8, 18))
    assert [idx_BT[:, 0].tolist() for idx_BT, _ in batches] == [[0, 8], [16]]
    assert count_targets(joined, 18) == sum(int((targets_BT >= 0).sum()) for _, targets_BT in batches) == 18


def test_split_batches_ignore_what_does_not_count() -> None:
    joined = TokenSplit("sea", "val", np.arange(7), 7, 7, 7)
    ((idx_BT, targets_BT),) = split_batches(joined, 9, 4, stride=2)
    assert idx_BT.tolist() == [[0, 1, 2, 3], [2, 3, 4, 5]]
    assert targets_BT.tolist() == [[1, 2, 3, 4], [-100, -100, 5, 6]]


def test_split_windows_of_isolated_documents_have_one_order_and_no_stride() -> None:
    split = split_of(SIZES)
    orders = []
    for batch_size in (1, 3, 9):
        windows = split_windows(split, batch_size, 8, stride=8)
        orders.append([target for _, targets_BT, counted_BT in windows for target in targets_BT[counted_BT].tolist()])
    assert orders[0] == orders[1] == orders[2]
    with pytest.raises(ConfigError, match="stride=4: the rows of isolated documents do not overlap"):
        list(split_windows(split, 1, 8, stride=4))


@pytest.mark.parametrize("family", registry.families())
def test_split_batches_give_each_document_the_loss_of_the_document_alone(family: str) -> None:
    """For every family, exactly: neither the rows beside a document nor the padding behind it changes its loss."""
    tiny = subject(family)
    model, T = tiny.model().double(), tiny.context
    sizes = [2, T + 1, 2 * T + 4, T // 2, 3]
    split = split_of(sizes, tiny.tokens(1, sum(sizes))[0].numpy())
    packed, alone = [], []
    with torch.no_grad():
        for idx_BT, targets_BT in split_batches(split, 8, T):
            for logits_TV, targets_T in zip(model(idx_BT).logits, targets_BT, strict=True):
                packed.append(float(cross_entropy(logits_TV[None], targets_T[None])))
        for document in np.split(split.tokens, split.ends[:-1]):
            ids_BT = torch.from_numpy(document)[None]
            for start in range(0, len(document) - 1, T):  # each piece starts anew
                idx_BT, targets_BT = ids_BT[:, start : start + T], ids_BT[:, start + 1 : start + T + 1]
                alone.append(float(model(idx_BT[:, : targets_BT.shape[1]], targets_BT).loss))
    assert len(set(alone)) == len(alone) == 7
    assert sorted(packed) == pytest.approx(sorted(alone), abs=1e-9)


def test_require_targets_names_a_split_without_targets() -> None:
    with pytest.raises(DataError, match="the val split of sea has no document with two tokens"):
        require_targets(split_of([1, 1, 1]))
    with pytest.raises(DataError, match="has 1 token: there is nothing to predict"):
        require_targets(split_of([1]))
    require_targets(split_of([1, 2]))
