"""State as a value: appending, cloning and selecting never reach into another state."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from lmzoo import state
from lmzoo.state import TimeBuffer


class Pair(NamedTuple):
    left: torch.Tensor
    right: TimeBuffer


def numbers(start: int, count: int, batch_size: int = 2) -> torch.Tensor:
    """(batch_size, count, 1): row b holds 100·b + start, start + 1, ..."""
    row = torch.arange(start, start + count, dtype=torch.float32)
    return torch.stack([row + 100 * b for b in range(batch_size)])[..., None]


@pytest.mark.parametrize("window", [None, 1, 2, 5])
@pytest.mark.parametrize("max_len", [0, 1, 3, 12])
@pytest.mark.parametrize("pieces", [[1] * 12, [12], [3, 1, 1, 5, 2], [0, 7, 0, 5]])
def test_entries_are_the_last_of_what_was_appended(window: int | None, max_len: int, pieces: list[int]) -> None:
    buffer, seen = TimeBuffer.empty(2, max_len, 1, window=window), 0
    for piece in pieces:
        buffer = buffer.append(numbers(seen, piece))
        seen += piece
        kept = seen if window is None else min(seen, window)
        assert torch.equal(buffer.entries(), numbers(seen - kept, kept))


@pytest.mark.parametrize("window", [None, 3])
def test_two_continuations_of_one_state_never_meet(window: int | None) -> None:
    start = TimeBuffer.empty(2, 16, 1, window=window).append(numbers(0, 4))
    first, second = start, start
    for t in range(4, 9):
        first, second = first.append(numbers(t, 1)), second.append(numbers(t + 50, 1))
    reach = 9 if window is None else window
    assert torch.equal(first.entries(), numbers(0, 9)[:, -reach:])
    assert torch.equal(second.entries(), torch.cat([numbers(0, 4), numbers(54, 5)], dim=1)[:, -reach:])
    assert torch.equal(start.entries(), numbers(0, 4)[:, -reach:]), "the state they began from is unchanged"


def test_the_usual_continuation_is_written_in_place() -> None:
    buffer = TimeBuffer.empty(1, 4, 1).append(numbers(0, 2, 1))
    assert buffer.append(numbers(2, 1, 1)).data.data_ptr() == buffer.data.data_ptr()
    assert buffer.append(numbers(2, 1, 1)).data.data_ptr() != buffer.data.data_ptr(), "that place is taken now"


def test_a_window_moves_rarely_and_its_memory_is_bounded() -> None:
    buffer, moves = TimeBuffer.empty(1, 1000, 1, window=8), 0
    for t in range(200):
        after = buffer.append(numbers(t, 1, 1))
        moves += after.data.data_ptr() != buffer.data.data_ptr()
        buffer = after
    assert buffer.data.shape[1] == 16
    assert moves <= 200 / 8


def test_the_dtype_of_the_buffer_stays() -> None:
    buffer = TimeBuffer.empty(1, 1, 1, dtype=torch.bfloat16)
    for t in range(5):
        buffer = buffer.append(numbers(t, 1, 1))
        assert buffer.entries().dtype == torch.bfloat16


def tree() -> dict[str, object]:
    buffer = TimeBuffer.empty(2, 4, 1).append(numbers(0, 3))
    return {"position": 3, "none": None, "layers": [(numbers(0, 2), ()), Pair(numbers(5, 1), buffer)]}


def test_clone_shares_nothing() -> None:
    original = tree()
    copy = state.clone(original)
    for tensor in state.tensors(copy):
        tensor.fill_(-1)
    for before, after in zip(state.tensors(tree()), state.tensors(original), strict=True):
        assert torch.equal(before, after)
    assert copy["position"] == 3
    assert isinstance(copy["layers"][1], Pair)


def test_select_takes_rows_in_order_and_again() -> None:
    chosen = state.select(tree(), [1, 0, 1])
    pair = chosen["layers"][1]
    assert pair.right.entries()[:, 0, 0].tolist() == [100, 0, 100]
    grown = pair.right.append(numbers(3, 1, 3))
    assert grown.entries()[1, :, 0].tolist() == [0, 1, 2, 103]
    assert state.select(tree(), [])["layers"][0][0].shape == (0, 2, 1)


def test_bytes_count_capacity() -> None:
    assert state.nbytes({"a": torch.zeros(2, 3), "b": [TimeBuffer.empty(2, 10, 4, dtype=torch.bfloat16)]}) == 24 + 160
    assert state.nbytes(()) == 0


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(AssertionError, match="a state cannot hold a set"):
        state.clone({"bad": {1, 2}})


def test_a_new_buffer_holds_nothing_and_is_filled_in_place() -> None:
    assert TimeBuffer(torch.zeros(2, 4, 1)).entries().shape == (2, 0, 1)
    empty = TimeBuffer.empty(1, 4, 1)
    assert empty.append(numbers(0, 4, 1)).data.data_ptr() == empty.data.data_ptr()


def test_room_is_what_was_asked_for_or_two_windows() -> None:
    assert TimeBuffer.empty(1, 1000, 1, window=8).data.shape[1] == 16
    assert TimeBuffer.empty(1, 5, 1, window=8).data.shape[1] == 5
    assert TimeBuffer.empty(1, 1000, 1).data.shape[1] == 1000


def test_moving_takes_no_more_room_than_is_due() -> None:
    assert TimeBuffer.empty(1, 1, 1).data.shape[1] == 1
    assert TimeBuffer.empty(1, 2, 1).append(numbers(0, 4, 1)).data.shape[1] == 4, "doubled until it is enough"
    start = TimeBuffer.empty(2, 16, 1).append(numbers(0, 4))
    start.append(numbers(4, 1))
    assert start.append(numbers(4, 1)).data.shape[1] == 16, "the second continuation has the room of the first"
    moved = TimeBuffer.empty(2, 8, 1, window=4).append(numbers(0, 8)).append(numbers(8, 1))
    assert (moved.length, moved.data.shape[1]) == (4, 8), "what is out of reach is dropped"
    full = TimeBuffer.empty(2, 3, 1, window=4).append(numbers(0, 4))
    assert (full.length, full.data.shape[1]) == (4, 8), "a full window has room for a second one"
