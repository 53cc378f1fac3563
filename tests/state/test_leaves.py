"""Tests of the leaves: appending to a buffer never reaches into another state, and a constant is no part of a state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import lmzoo
from lmzoo import state
from lmzoo.errors import CheckpointError, InputError
from lmzoo.state import Constant, TimeBuffer
from tests.cases import each_case
from tests.state.trees import numbers


def test_time_buffer_empty_names_a_wrong_number() -> None:
    for sizes, message in (
        ((None, 2), "batch_size=None"), ((-1, 2), "batch_size=-1"), ((1, 2.5), "max_len=2.5"), ((1, -2), "max_len=-2"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"^{message} must be an integer"):
            TimeBuffer.empty(*sizes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^window=0 must be a positive integer"):
        TimeBuffer.empty(1, 2, window=0)


@each_case("window", [None, 1, 2, 5])
@each_case("max_len", [0, 1, 3, 12])
@pytest.mark.parametrize("pieces", [[1] * 12, [12], [3, 1, 1, 5, 2], [0, 7, 0, 5]])
def test_time_buffer_entries_are_the_last_that_were_appended(
    window: int | None, max_len: int, pieces: list[int]
) -> None:
    buffer, seen = TimeBuffer.empty(2, max_len, 1, window=window), 0
    for piece in pieces:
        buffer = buffer.append(numbers(seen, piece))
        seen += piece
        kept = seen if window is None else min(seen, window)
        assert torch.equal(buffer.entries(), numbers(seen - kept, kept))


@pytest.mark.parametrize("window", [None, 3])
def test_time_buffer_keeps_two_continuations_apart(window: int | None) -> None:
    start = TimeBuffer.empty(2, 16, 1, window=window).append(numbers(0, 4))
    first, second = start, start
    for t in range(4, 9):
        first, second = first.append(numbers(t, 1)), second.append(numbers(t + 50, 1))
    reach = 9 if window is None else window
    assert torch.equal(first.entries(), numbers(0, 9)[:, -reach:])
    assert torch.equal(second.entries(), torch.cat([numbers(0, 4), numbers(54, 5)], dim=1)[:, -reach:])
    assert torch.equal(start.entries(), numbers(0, 4)[:, -reach:]), "the state they began from is unchanged"


def test_time_buffer_appends_in_place_once() -> None:
    buffer = TimeBuffer.empty(1, 4, 1).append(numbers(0, 2, 1))
    assert buffer.append(numbers(2, 1, 1)).data.data_ptr() == buffer.data.data_ptr()
    assert buffer.append(numbers(2, 1, 1)).data.data_ptr() != buffer.data.data_ptr(), "that place is taken now"


def test_time_buffer_with_a_window_moves_rarely_in_bounded_memory() -> None:
    buffer, moves = TimeBuffer.empty(1, 1000, 1, window=8), 0
    for t in range(200):
        after = buffer.append(numbers(t, 1, 1))
        moves += after.data.data_ptr() != buffer.data.data_ptr()
        buffer = after
    assert buffer.data.shape[1] == 16
    assert moves <= 200 / 8


def test_time_buffer_keeps_its_dtype() -> None:
    buffer = TimeBuffer.empty(1, 1, 1, dtype=torch.bfloat16)
    for t in range(5):
        buffer = buffer.append(numbers(t, 1, 1))
        assert buffer.entries().dtype == torch.bfloat16


def test_time_buffer_begins_empty_and_is_filled_in_place() -> None:
    assert TimeBuffer(torch.zeros(2, 4, 1)).entries().shape == (2, 0, 1)
    empty = TimeBuffer.empty(1, 4, 1)
    assert empty.append(numbers(0, 4, 1)).data.data_ptr() == empty.data.data_ptr()


def test_time_buffer_has_the_room_asked_for_or_two_windows() -> None:
    assert TimeBuffer.empty(1, 1000, 1, window=8).data.shape[1] == 16
    assert TimeBuffer.empty(1, 5, 1, window=8).data.shape[1] == 5
    assert TimeBuffer.empty(1, 1000, 1).data.shape[1] == 1000


def test_time_buffer_moves_into_no_more_room_than_needed() -> None:
    assert TimeBuffer.empty(1, 1, 1).data.shape[1] == 1
    assert TimeBuffer.empty(1, 2, 1).append(numbers(0, 4, 1)).data.shape[1] == 4, "doubled until it is enough"
    start = TimeBuffer.empty(2, 16, 1).append(numbers(0, 4))
    start.append(numbers(4, 1))
    assert start.append(numbers(4, 1)).data.shape[1] == 16, "the second continuation has the room of the first"
    moved = TimeBuffer.empty(2, 8, 1, window=4).append(numbers(0, 8)).append(numbers(8, 1))
    assert (moved.length, moved.data.shape[1]) == (4, 8), "what is out of reach is dropped"
    full = TimeBuffer.empty(2, 3, 1, window=4).append(numbers(0, 4))
    assert (full.length, full.data.shape[1]) == (4, 8), "a full window has room for a second one"


class Filtered(lmzoo.LanguageModel):
    """A model whose features are a causal filter over all tokens; the taps are computed once per state."""

    def __init__(self) -> None:
        super().__init__(lmzoo.ModelConfig(vocab_size=7, context_length=16))
        self.tokens, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)
        self.rate = nn.Parameter(torch.rand(4))

    @property
    def traits(self) -> lmzoo.Traits:
        return lmzoo.Traits(extrapolates=True)

    def init_layers(self, batch_size: int, max_len: int, like: torch.Tensor) -> state.State:
        taps_TD = torch.exp(-torch.arange(40.0)[:, None] * self.rate)  # the last one first
        return {"seen": TimeBuffer.empty(batch_size, max_len, 4, dtype=like.dtype), "taps": Constant(taps_TD)}

    def features(self, idx_BT: torch.Tensor, past: state.State = None) -> tuple[torch.Tensor, state.State]:
        past = past or self.init_layers(*idx_BT.shape, self.rate)
        seen, taps_TD = past["seen"].append(self.tokens(idx_BT)), past["taps"].tensor
        x_BSD, T = seen.entries(), idx_BT.shape[1]
        ends = range(x_BSD.shape[1] - T + 1, x_BSD.shape[1] + 1)
        y_BTD = torch.stack([(x_BSD[:, :t] * taps_TD[:t].flip(0)).sum(dim=1) for t in ends], dim=1)
        return y_BTD, {"seen": seen, "taps": past["taps"]}


@torch.no_grad()
def test_constant_is_no_part_of_the_sequence(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Filtered().eval()
    idx_BT = torch.randint(7, (3, 12))
    logits_BTV = model(idx_BT).logits
    _, past = model.decode(idx_BT[:, :6], model.init_state(3, 12))
    taps = past["layers"]["taps"]
    assert [tensor.shape[0] for tensor in state.tensors(past)] == [3]
    assert state.nbytes(past) == 3 * 6 * 4 * 4
    assert state.capacity_bytes(past) == model.state_bytes(12) * 3 == 3 * 12 * 4 * 4
    state.save(tmp_path / "state", past)
    assert (tmp_path / "state").stat().st_size < 1000
    loaded = state.load(tmp_path / "state", like=model.init_state(1))
    assert loaded["layers"]["taps"].tensor is not taps.tensor
    assert state.clone(past)["layers"]["taps"] is taps
    cases = {"itself": (past, [0, 1, 2]), "clone": (state.clone(past), [0, 1, 2]), "loaded": (loaded, [0, 1, 2])}
    for name, (start, rows) in {**cases, "select": (state.select(past, [2, 0]), [2, 0])}.items():
        for t in range(6, 12):
            logits_BV, start = model.decode(idx_BT[rows, t : t + 1], start)
            torch.testing.assert_close(logits_BV, logits_BTV[rows, t], msg=name)
    with pytest.raises(CheckpointError, match="a constant in place of a Tensor"):
        state.load(tmp_path / "state", like={**model.init_state(1), "layers": {**past["layers"], "taps": taps.tensor}})
