"""State as a value: appending, cloning and selecting never reach into another state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from lmzoo import state
from lmzoo.errors import CheckpointError
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


def empty_tree() -> dict[str, object]:
    """What `tree` begins as, for one row: what a model's `init_state` is."""
    pair = Pair(numbers(0, 1, 1), TimeBuffer.empty(1, 9, 1))
    return {"position": 0, "none": None, "layers": [(numbers(0, 2, 1), ()), pair]}


def test_a_saved_state_comes_back_as_it_was(tmp_path: Path) -> None:
    original = tree()
    original["strided"] = numbers(0, 6).transpose(0, 1)
    state.save(tmp_path / "state", original)
    assert [path.name for path in tmp_path.iterdir()] == ["state"], "nothing else is left"
    loaded = state.load(tmp_path / "state", like={**empty_tree(), "strided": numbers(0, 2, 1)})
    assert (loaded["position"], loaded["none"]) == (3, None)
    assert isinstance(loaded["layers"], list)
    (first, nothing), pair = loaded["layers"]
    assert (type(loaded["layers"][0]), nothing, type(pair)) == (tuple, (), Pair)
    assert torch.equal(first, numbers(0, 2))
    assert torch.equal(loaded["strided"], original["strided"])
    before = original["layers"][1].right
    assert torch.equal(pair.right.entries(), before.entries())
    assert (pair.right.length, pair.right.window, pair.right.data.shape) == (3, None, before.data.shape)
    more = pair.right.append(numbers(3, 1))
    assert more.data.data_ptr() == pair.right.data.data_ptr(), "it goes on in place"
    assert torch.equal(more.entries(), numbers(0, 4))


@pytest.mark.parametrize("pieces", [[2], [5, 1], [1] * 9])
def test_a_window_is_saved_with_what_is_in_reach(tmp_path: Path, pieces: list[int]) -> None:
    buffer, seen = TimeBuffer.empty(2, 99, 1, window=3), 0
    for piece in pieces:
        buffer, seen = buffer.append(numbers(seen, piece)), seen + piece
    state.save(tmp_path / "state", [buffer])
    loaded = state.load(tmp_path / "state", like=[TimeBuffer.empty(1, 3, 1, window=3)])[0]
    for t in range(seen, seen + 9):
        assert torch.equal(loaded.entries(), buffer.entries())
        loaded, buffer = loaded.append(numbers(t, 1)), buffer.append(numbers(t, 1))


def test_what_is_not_used_yet_takes_no_room_in_the_file(tmp_path: Path) -> None:
    state.save(tmp_path / "state", (TimeBuffer.empty(1, 100_000, 1).append(numbers(0, 2, 1)),))
    assert (tmp_path / "state").stat().st_size < 1000
    loaded = state.load(tmp_path / "state", like=(TimeBuffer.empty(1, 1, 1),))
    assert loaded[0].data.shape[1] <= 4096


OTHERS = {
    "a key": {"position": 0, "other": None, "layers": []},
    "a length": {**empty_tree(), "layers": []},
    "a width": {**empty_tree(), "layers": [(numbers(0, 2, 1), ()), Pair(numbers(0, 1, 1), TimeBuffer.empty(1, 9, 2))]},
    "a type": {**empty_tree(), "layers": [(numbers(0, 2, 1).double(), ()), empty_tree()["layers"][1]]},
    "a window": {
        **empty_tree(),
        "layers": [(numbers(0, 2, 1), ()), Pair(numbers(0, 1, 1), TimeBuffer.empty(1, 9, 1, window=2))],
    },
    "a tuple for a named one": {
        **empty_tree(),
        "layers": [(numbers(0, 2, 1), ()), (numbers(0, 1, 1), TimeBuffer.empty(1, 9, 1))],
    },
    "a list for a tuple": {**empty_tree(), "layers": [[numbers(0, 2, 1), ()], empty_tree()["layers"][1]]},
    "a number": {**empty_tree(), "position": "3"},
    "nothing": {**empty_tree(), "layers": None},
}


@pytest.mark.parametrize("what", OTHERS)
def test_the_state_of_another_model_is_refused(tmp_path: Path, what: str) -> None:
    state.save(tmp_path / "state", tree())
    with pytest.raises(CheckpointError, match=r"state: the state of another model: .* in place of"):
        state.load(tmp_path / "state", like=OTHERS[what])


def test_a_part_that_is_no_longer_kept_is_none(tmp_path: Path) -> None:
    state.save(tmp_path / "state", {**tree(), "layers": None})
    assert state.load(tmp_path / "state", like=empty_tree())["layers"] is None


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path, good = tmp_path / "state", tmp_path / "good"
    with pytest.raises(CheckpointError, match="state: cannot be read"):
        state.load(path, like=tree())
    with pytest.raises(CheckpointError, match="state: cannot be written"):
        state.save(tmp_path / "absent" / "state", tree())
    state.save(good, tree())
    whole = good.read_bytes()
    for damaged in (b"", whole[:-3], whole[:40], b"\xff" * 50):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="state: a damaged decoding state"):
            state.load(path, like=empty_tree())
    save_file({"0": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not a decoding state"):
        state.load(path, like=empty_tree())


@pytest.mark.parametrize(
    "structure",
    [
        "",
        "[",
        "[]",
        "{}",
        json.dumps({"tensor": "9"}),
        json.dumps({"tensor": ["0"]}),
        "[" * 100_000,
    ],
)
def test_a_structure_that_is_none_is_refused(tmp_path: Path, structure: str) -> None:
    save_file({"0": torch.zeros(1)}, tmp_path / "state", metadata={"format": state.FORMAT, "structure": structure})
    with pytest.raises(CheckpointError, match="state: a damaged decoding state"):
        state.load(tmp_path / "state", like=torch.zeros(1))


@pytest.mark.parametrize("capacity", [2, -1, None, 1.5, True])
def test_an_impossible_capacity_is_refused(tmp_path: Path, capacity: object) -> None:
    structure = json.dumps({"buffer": "0", "capacity": capacity, "window": None})
    save_file({"0": torch.zeros(1, 3)}, tmp_path / "state", metadata={"format": state.FORMAT, "structure": structure})
    with pytest.raises(CheckpointError, match="a buffer of 3 entries has capacity"):
        state.load(tmp_path / "state", like=TimeBuffer.empty(1, 5))


@pytest.mark.parametrize(("length", "capacity", "room"), [(2000, 100_000, 8000), (10, 100_000, 4096), (10, 20, 20)])
def test_a_number_in_a_file_does_not_take_all_memory(tmp_path: Path, length: int, capacity: int, room: int) -> None:
    buffer = TimeBuffer.empty(1, capacity, 1).append(numbers(0, length, 1))
    state.save(tmp_path / "state", buffer)
    loaded = state.load(tmp_path / "state", like=TimeBuffer.empty(1, 1, 1))
    assert loaded.data.shape[1] == room
    assert torch.equal(loaded.append(numbers(length, 1, 1)).entries(), numbers(0, length + 1, 1))


def test_a_state_of_another_shape_is_refused(tmp_path: Path) -> None:
    state.save(tmp_path / "state", {"h": torch.zeros(1, 4)})
    with pytest.raises(CheckpointError, match=r"\(1, 4\) in place of torch.float32 \(1, 3\)"):
        state.load(tmp_path / "state", like={"h": torch.zeros(1, 3)})
    assert state.load(tmp_path / "state", like={"h": torch.zeros(7, 4)})["h"].shape == (1, 4), "any number of rows"
    state.save(tmp_path / "state", {"h": (torch.zeros(1),)})
    with pytest.raises(CheckpointError, match="a tuple in place of nothing"):
        state.load(tmp_path / "state", like={"h": None})
