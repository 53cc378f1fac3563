"""Tests that mapped tensors equal the saved ones, and that their pages are given back."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
import torch

from lmzoo.errors import CheckpointError
from lmzoo.storage.mapped import MappedTensors
from lmzoo.storage.safetensors import write_tensors


def resident(path: Path) -> int:
    """Returns the bytes of the file that are mapped into this process and resident."""
    text = Path("/proc/self/smaps").read_text()
    found = re.findall(rf"{re.escape(str(path))}\n(?:.*\n)*?Rss:\s+(\d+) kB", text)
    return 1024 * sum(map(int, found))


def write(path: Path, header: str, body: bytes) -> Path:
    """Writes a safetensors file with any header."""
    text = header.encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def test_mapped_tensors_equal_the_saved_ones(tmp_path: Path) -> None:
    tensors = {
        "float": torch.randn(3, 5),
        "half": torch.randn(7).half(),
        "wide": torch.randn(2, 1, 2).bfloat16(),
        "number": torch.tensor(3),
        "empty": torch.empty(0, 4),
    }
    write_tensors(tensors, tmp_path / "a.safetensors")
    mapped = MappedTensors(tmp_path / "a.safetensors")
    assert {*mapped} == {*tensors}
    assert len(mapped) == len(tensors)
    for name, tensor in tensors.items():
        assert mapped[name].dtype == mapped.dtype(name) == tensor.dtype
        assert torch.equal(mapped[name], tensor)


def test_mapped_adjacent_is_the_concatenation_without_a_copy(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(2, 3), "b": torch.randn(4, 3), "c": torch.randn(1, 2), "d": torch.randn(1, 2).half()}
    write_tensors(tensors, tmp_path / "a.safetensors")
    mapped = MappedTensors(tmp_path / "a.safetensors")
    joined = mapped.adjacent(["a", "b"])
    assert joined is not None
    assert torch.equal(joined, torch.cat([tensors["a"], tensors["b"]]))
    assert joined.data_ptr() == mapped["a"].data_ptr()
    assert mapped.adjacent(["b", "a"]) is mapped.adjacent(["b", "c"]) is mapped.adjacent(["c", "d"]) is None


def test_mapped_tensors_can_be_changed_but_not_the_file(tmp_path: Path) -> None:
    write_tensors({"w": torch.zeros(5)}, tmp_path / "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    MappedTensors(tmp_path / "a.safetensors")["w"].fill_(3.0)
    assert (tmp_path / "a.safetensors").read_bytes() == before


def test_mapped_release_gives_pages_back(tmp_path: Path) -> None:
    path = tmp_path / "big.safetensors"
    tensor = torch.randn(1 << 20)
    write_tensors({"w": tensor}, path)
    mapped = MappedTensors(path)
    view = mapped["w"]
    assert resident(path) < tensor.nbytes // 10
    assert torch.equal(view, tensor)
    assert resident(path) > tensor.nbytes // 2
    mapped.release()
    assert resident(path) < tensor.nbytes // 10
    assert torch.equal(view, tensor), "a view stays valid"


def test_mapped_refuses_a_tensor_that_is_there_twice(tmp_path: Path) -> None:
    entry = '"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    path = write(tmp_path / "a.safetensors", f"{{{entry}, {entry}}}", b"\0" * 4)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: (holds 'w' twice|is not a safetensors file)"):
        MappedTensors(path)


@pytest.mark.parametrize("change", ["shorter", "longer", "empty", "missing", "folder", "pipe-like"])
def test_mapped_refuses_a_damaged_file(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors({"w": torch.ones(4)}, path)
    whole = path.read_bytes()
    path.unlink()
    if change == "folder":
        path.mkdir()
    elif change != "missing":
        path.write_bytes({"shorter": whole[:-1], "longer": whole + b"x", "empty": b""}.get(change, b"\xff" * 64))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: "):
        MappedTensors(path)


def test_mapped_refuses_a_dtype_that_models_do_not_use(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}})
    mapped = MappedTensors(write(tmp_path / "a.safetensors", header, b"\0" * 4))
    with pytest.raises(CheckpointError, match="w is of type F8_E4M3, which lmzoo does not read"):
        mapped["w"]
