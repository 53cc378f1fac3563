"""Tests of states as values: appending, cloning and selecting never reach into another state."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lmzoo
from lmzoo import state
from lmzoo.errors import CheckpointError, InputError
from lmzoo.state import Constant, TimeBuffer
from tests.cases import each_case


class Pair(NamedTuple):
    left: torch.Tensor
    right: TimeBuffer


def numbers(start: int, count: int, batch_size: int = 2) -> torch.Tensor:
    """(batch_size, count, 1): row b holds 100·b + start, start + 1, ..."""
    row = torch.arange(start, start + count, dtype=torch.float32)
    return torch.stack([row + 100 * b for b in range(batch_size)])[..., None]


def test_time_buffer_empty_names_a_wrong_number() -> None:
    for numbers, message in (
        ((None, 2), "batch_size=None"), ((-1, 2), "batch_size=-1"), ((1, 2.5), "max_len=2.5"), ((1, -2), "max_len=-2"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"^{message} must be an integer"):
            TimeBuffer.empty(*numbers)  # type: ignore[arg-type]
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


def tree() -> dict[str, object]:
    buffer = TimeBuffer.empty(2, 4, 1).append(numbers(0, 3))
    return {"position": 3, "none": None, "layers": [(numbers(0, 2), ()), Pair(numbers(5, 1), buffer)]}


def test_clone_shares_no_memory() -> None:
    original = tree()
    copy = state.clone(original)
    for tensor in state.tensors(copy):
        tensor.fill_(-1)
    for before, after in zip(state.tensors(tree()), state.tensors(original), strict=True):
        assert torch.equal(before, after)
    assert copy["position"] == 3
    assert isinstance(copy["layers"][1], Pair)


def test_select_takes_rows_in_order_and_repeatedly() -> None:
    chosen = state.select(tree(), [1, 0, 1])
    pair = chosen["layers"][1]
    assert pair.right.entries()[:, 0, 0].tolist() == [100, 0, 100]
    grown = pair.right.append(numbers(3, 1, 3))
    assert grown.entries()[1, :, 0].tolist() == [0, 1, 2, 103]
    assert state.select(tree(), [])["layers"][0][0].shape == (0, 2, 1)


def test_nbytes_counts_the_entries_in_reach() -> None:
    assert state.nbytes(()) == state.capacity_bytes(()) == 0
    halves = {"a": torch.zeros(2, 3), "b": [TimeBuffer.empty(2, 10, 4, dtype=torch.bfloat16)]}
    assert state.nbytes(halves) == state.capacity_bytes(halves) == 24 + 160, "an empty buffer: what it has room for"
    halves["b"][0] = halves["b"][0].append(numbers(0, 3))
    assert (state.nbytes(halves), state.capacity_bytes(halves)) == (24 + 48, 24 + 160)


@pytest.mark.parametrize(("room", "empty"), [(3, 3), (8, 8), (15, 8), (1000, 8)])
def test_nbytes_of_a_window(room: int, empty: int) -> None:
    buffer = TimeBuffer.empty(1, room, 1, window=8)
    assert state.nbytes(buffer) == 4 * empty
    for length in range(1, 30):
        buffer = buffer.append(numbers(length, 1, 1))
        assert state.nbytes(buffer) == 4 * min(length, 8) == 4 * buffer.entries().numel()
        assert state.capacity_bytes(buffer) == 4 * buffer.data.shape[1]
    assert state.capacity_bytes(buffer) == 4 * 16


def test_clone_refuses_what_is_no_state() -> None:
    with pytest.raises(InputError, match="a state cannot hold a set"):
        state.clone({"bad": {1, 2}})


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


def empty_tree() -> dict[str, object]:
    """The initial state for `tree` with one row, as from `init_state` of a model."""
    pair = Pair(numbers(0, 1, 1), TimeBuffer.empty(1, 9, 1))
    return {"position": 0, "none": None, "layers": [(numbers(0, 2, 1), ()), pair]}


def test_save_and_load_give_the_same_state(tmp_path: Path) -> None:
    original = tree()
    original["strided"] = numbers(0, 2, 6).transpose(0, 1)
    state.save(tmp_path / "state", original)
    assert [path.name for path in tmp_path.iterdir()] == ["state"], "nothing else is left"
    loaded = state.load(tmp_path / "state", like={**empty_tree(), "strided": numbers(0, 6, 1)})
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
def test_save_keeps_the_reach_of_a_window(tmp_path: Path, pieces: list[int]) -> None:
    buffer, seen = TimeBuffer.empty(2, 99, 1, window=3), 0
    for piece in pieces:
        buffer, seen = buffer.append(numbers(seen, piece)), seen + piece
    state.save(tmp_path / "state", [buffer])
    loaded = state.load(tmp_path / "state", like=[TimeBuffer.empty(1, 3, 1, window=3)])[0]
    for t in range(seen, seen + 9):
        assert torch.equal(loaded.entries(), buffer.entries())
        loaded, buffer = loaded.append(numbers(t, 1)), buffer.append(numbers(t, 1))


def test_save_leaves_out_unused_room(tmp_path: Path) -> None:
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
def test_load_refuses_the_state_of_another_model(tmp_path: Path, what: str) -> None:
    state.save(tmp_path / "state", tree())
    with pytest.raises(CheckpointError, match=r"state: the state of another model: .* in place of"):
        state.load(tmp_path / "state", like=OTHERS[what])


def test_load_takes_none_for_a_part_that_was_dropped(tmp_path: Path) -> None:
    state.save(tmp_path / "state", {**tree(), "layers": None})
    assert state.load(tmp_path / "state", like=empty_tree())["layers"] is None


def test_load_refuses_damaged_files(tmp_path: Path) -> None:
    path, good = tmp_path / "state", tmp_path / "good"
    with pytest.raises(CheckpointError, match="state: cannot be read"):
        state.load(path, like=tree())
    with pytest.raises(CheckpointError, match="state: cannot be written"):
        state.save(tmp_path / "absent" / "state", tree())
    state.save(good, tree())
    whole = good.read_bytes()
    for damaged in (b"", whole[:-3], whole[:40], b"\xff" * 50):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="state: is not a safetensors file, or is damaged"):
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
def test_load_refuses_a_structure_that_is_not_ours(tmp_path: Path, structure: str) -> None:
    save_file({"0": torch.zeros(1)}, tmp_path / "state", metadata={"format": state.FORMAT, "structure": structure})
    with pytest.raises(CheckpointError, match="state: a damaged decoding state"):
        state.load(tmp_path / "state", like=torch.zeros(1))


@pytest.mark.parametrize("capacity", [2, -1, None, 1.5, True])
def test_load_refuses_an_impossible_capacity(tmp_path: Path, capacity: object) -> None:
    structure = json.dumps({"buffer": "0", "capacity": capacity, "window": None})
    save_file({"0": torch.zeros(1, 3)}, tmp_path / "state", metadata={"format": state.FORMAT, "structure": structure})
    with pytest.raises(CheckpointError, match="a buffer of 3 entries has capacity"):
        state.load(tmp_path / "state", like=TimeBuffer.empty(1, 5))


@pytest.mark.parametrize(("length", "capacity", "room"), [(2000, 100_000, 4000), (10, 100_000, 20), (10, 15, 15)])
def test_load_bounds_the_memory_that_a_file_asks_for(tmp_path: Path, length: int, capacity: int, room: int) -> None:
    buffer = TimeBuffer.empty(1, capacity, 1).append(numbers(0, length, 1))
    state.save(tmp_path / "state", buffer)
    loaded = state.load(tmp_path / "state", like=TimeBuffer.empty(1, 1, 1))
    assert loaded.data.shape[1] == room
    assert torch.equal(loaded.append(numbers(length, 1, 1)).entries(), numbers(0, length + 1, 1))


def crafted(path: Path, tensors: dict[str, torch.Tensor], structure: object) -> Path:
    """Write a state file with any tensors and structure."""
    save_file(tensors, path, metadata={"format": state.FORMAT, "structure": json.dumps(structure)})
    return path


def test_load_of_an_empty_buffer_can_be_continued(tmp_path: Path) -> None:
    node = {"buffer": "0", "capacity": 0, "window": None}
    loaded = state.load(crafted(tmp_path / "state", {"0": torch.zeros(1, 0, 1)}, node), like=TimeBuffer.empty(1, 5, 1))
    assert torch.equal(loaded.append(numbers(0, 3, 1)).entries(), numbers(0, 3, 1))


def test_load_allocates_nothing_for_rows_without_entries(tmp_path: Path) -> None:
    node = {"buffer": "0", "capacity": 1 << 40, "window": None}
    path = crafted(tmp_path / "state", {"0": torch.zeros(1 << 40, 0, 1)}, node)
    assert state.load(path, like=TimeBuffer.empty(1, 5, 1)).data.nbytes == 0


def test_load_refuses_different_numbers_of_rows(tmp_path: Path) -> None:
    nodes = {"tuple": [{"tensor": "0"}, {"tensor": "1"}]}
    path = crafted(tmp_path / "state", {"0": torch.zeros(1, 2), "1": torch.zeros(3, 2)}, nodes)
    with pytest.raises(CheckpointError, match="different numbers of rows"):
        state.load(path, like=(torch.zeros(1, 2), torch.zeros(1, 2)))


@pytest.mark.parametrize("number", [-1, 1 << 62, 10**400])
def test_load_refuses_impossible_numbers(tmp_path: Path, number: int) -> None:
    path = crafted(tmp_path / "state", {"0": torch.zeros(1)}, {"value": number})
    with pytest.raises(CheckpointError, match=r"must be in \[0, 2\^62\)"):
        state.load(path, like=0)


def test_load_refuses_another_text(tmp_path: Path) -> None:
    path = crafted(tmp_path / "state", {"0": torch.zeros(1)}, {"value": "llama"})
    with pytest.raises(CheckpointError, match="another model: 'llama' in place of 'gpt2'"):
        state.load(path, like="gpt2")


def test_save_and_load_take_regular_files_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="pipe: cannot be written: it exists and is not a regular file"):
        state.save(tmp_path / "pipe", tree())
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(CheckpointError, match="pipe: cannot be read: it is not a regular file"):
        state.load(tmp_path / "pipe", like=tree())


@pytest.mark.parametrize(
    "rows",
    [
        [2],
        [-1],
        [0.5],
        ["a"],
        [[0]],
        "01",
        3,
        [True],
        [1 << 70],
        torch.zeros(2, device="meta").long(),
        torch.zeros(2).long().to_sparse(),
    ],
)
def test_select_refuses_rows_that_do_not_exist(rows: Any) -> None:
    with pytest.raises(InputError, match="rows"):
        state.select(tree(), rows)


def test_rows_counts_the_first_dimension() -> None:
    assert state.rows(tree()) == 2
    assert state.rows({"position": 3, "layers": [None, (TimeBuffer.empty(5, 1),)]}) == 5
    assert state.rows([None, 3, Constant(torch.zeros(4))]) is None


def test_load_refuses_a_state_of_another_shape(tmp_path: Path) -> None:
    state.save(tmp_path / "state", {"h": torch.zeros(1, 4)})
    with pytest.raises(CheckpointError, match=r"\(1, 4\) in place of torch.float32 \(1, 3\)"):
        state.load(tmp_path / "state", like={"h": torch.zeros(1, 3)})
    assert state.load(tmp_path / "state", like={"h": torch.zeros(7, 4)})["h"].shape == (1, 4), "any number of rows"
    state.save(tmp_path / "state", {"h": (torch.zeros(1),)})
    with pytest.raises(CheckpointError, match="a tuple in place of nothing"):
        state.load(tmp_path / "state", like={"h": None})


def test_save_and_load_complex_tensors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    powers = torch.randn(2, 3, dtype=torch.complex64)
    original = {"h": powers, "lazy": powers.conj(), "seen": TimeBuffer.empty(2, 5, 3, dtype=torch.complex128)}
    original["seen"] = original["seen"].append(powers[:, None].to(torch.complex128))
    state.save(tmp_path / "state", original)
    like = {**original, "seen": TimeBuffer.empty(1, 1, 3, dtype=torch.complex128)}
    loaded = state.load(tmp_path / "state", like=like)
    torch.testing.assert_close(loaded["h"], powers, rtol=0, atol=0)
    torch.testing.assert_close(loaded["lazy"], powers.conj().resolve_conj(), rtol=0, atol=0)
    torch.testing.assert_close(loaded["seen"].entries(), original["seen"].entries(), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match=r"in place of torch.float64 \(2, 3, 2\)"):
        state.load(tmp_path / "state", like={**like, "h": powers.to(torch.complex128)})


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
