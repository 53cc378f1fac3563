"""Tests of state files: loading gives the saved state, and refuses the state of another model and damaged files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lmzoo import state
from lmzoo.errors import CheckpointError
from lmzoo.state import TimeBuffer
from tests.state.trees import Pair, empty_tree, numbers, tree


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
