"""Tests that our safetensors files have the same bytes as the package's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from lmzoo.storage import safetensors

KINDS = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
KINDS += [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("metadata", [None, {"format": 'a "quoted" one, und ein ü'}])
def test_chunks_equal_the_bytes_of_the_package(metadata: dict[str, str] | None) -> None:
    tensors = {
        f"{name}/{n}": (torch.arange(6).reshape(2, 3) - n).to(kind) for n, kind in enumerate(KINDS) for name in "ba"
    }
    tensors |= {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4), "one byte": torch.zeros(1, dtype=torch.uint8)}
    assert b"".join(safetensors.chunks(tensors, metadata)) == save(tensors, metadata)


def test_write_tensors_takes_tensors_that_are_not_contiguous(tmp_path: Path) -> None:
    tensors = {
        "turned": torch.arange(12.0).reshape(3, 4).T,
        "grad": torch.ones(2, requires_grad=True),
        "part": torch.arange(9)[2:5],
    }
    safetensors.write_tensors(tensors, tmp_path / "file")
    found = load_file(tmp_path / "file")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_write_tensors_never_overwrites_a_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        safetensors.write_tensors({"a": torch.zeros(1)}, tmp_path / "link")
    assert not (tmp_path / "target").exists()


def test_chunks_are_aligned(tmp_path: Path) -> None:
    """Tensors whose sizes are no multiples come last, so that they move no other."""
    tensors = {"a": torch.ones(3), "b": torch.full((16,), 2.0), "c": torch.full((4, 8), 3.0)}
    (tmp_path / "file").write_bytes(b"".join(bytes(chunk) for chunk in safetensors.chunks(tensors, align=64)))
    content = (tmp_path / "file").read_bytes()
    assert len(content) % 64 == 12
    assert content[-12:] == bytes(tensors["a"].numpy().data)
    loaded = load_file(tmp_path / "file")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
