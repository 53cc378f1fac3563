"""Reads safetensors files with the package of that name, and writes them one tensor at a time.

The format is the length of the header (eight bytes), a JSON header, and the bytes of the tensors. The writer of the
package holds all tensors in memory at once and reports a full disk without an error code; this one needs memory for one
tensor and raises `OSError`. The format allows any order of tensors. We use the order of the package, so that both
writers give the same bytes. That order is an implementation detail of the package, not of the format:
tests/storage/test_safetensors.py compares the bytes and fails if the package changes it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lmzoo import files
from lmzoo.errors import CheckpointError
from lmzoo.storage import atomic

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
# Names of the dtypes. The package sorts tensors by dtype, from the last of these to the first, and then by name.
_LAYOUT = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
_ORDER = list(_LAYOUT)
_ALIGN = 8  # bytes, of the package


def dtype_name(dtype: torch.dtype) -> str | None:
    """The name of a dtype in safetensors files; None for dtypes that models do not use."""
    return _LAYOUT.get(dtype)


def dtype_named(name: str) -> torch.dtype | None:
    """The dtype with this name in safetensors files; None for dtypes that models do not use."""
    return next((dtype for dtype, known in _LAYOUT.items() if known == name), None)


def chunks(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, *, align: int = _ALIGN
) -> Iterator[atomic.Chunk]:
    """Yields the content of a safetensors file in chunks: the header, then each tensor.

    A sharded tensor is gathered when it is reached, so all ranks must iterate over the chunks together. With `align`,
    each tensor begins at a multiple of so many bytes, unless the sizes of several are no multiples: kernels may sum in
    another order in memory that is aligned differently, and a file that is mapped then gives other last digits.
    """

    def place(name: str) -> tuple[int, bool, str]:
        tensor = tensors[name]
        return -_ORDER.index(tensor.dtype), align != _ALIGN and tensor.nbytes % align != 0, name

    names = sorted(tensors, key=place)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        tensor, start = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _LAYOUT[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % align)
    yield struct.pack("<Q", len(text)) + text
    for name in names:
        tensor = tensors[name].detach()
        gather: Any = getattr(tensor, "full_tensor", None)
        whole: Tensor = tensor if gather is None else gather()
        flat = whole.cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a new safetensors file, which the caller commits. Raises `OSError` when writing fails."""
    atomic.write_new(path, chunks(tensors))


@dataclass(frozen=True)
class TensorFile:
    """An open safetensors file: the shapes and dtypes in its header, and its tensors one by one."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]
    _file: Any

    def tensor(self, name: str) -> Tensor:
        """Read one tensor."""
        return self._file.get_tensor(name)

    def check(self, expected: Mapping[str, Tensor]) -> None:
        """Raise `CheckpointError` unless the file holds these names, shapes and types; float types may differ."""
        missing, extra = sorted({*expected} - {*self.shapes}), sorted({*self.shapes} - {*expected})
        if missing or extra:
            what = f"lacks the tensor {missing[0]!r}" if missing else f"holds {extra[0]!r}, which the model lacks"
            raise CheckpointError(f"{self.path}: {what}")
        for name, tensor in expected.items():
            if self.shapes[name] != tuple(tensor.shape):
                raise CheckpointError(
                    f"{self.path}: {name} has shape {self.shapes[name]}, its config asks for {tuple(tensor.shape)}"
                )
            saved, wanted = self.dtypes[name], dtype_name(tensor.dtype)
            if saved != wanted and not {saved, wanted} <= FLOATS:
                raise CheckpointError(f"{self.path}: {name} is of type {saved}, its config asks for {wanted}")


@contextmanager
def open_tensors(path: Path, device: torch.device | None = None) -> Generator[TensorFile]:
    """Open a safetensors file and read its header; its tensors are read to `device`, by default the CPU.

    Raises `CheckpointError` for a file that is damaged, incomplete or not a regular file.
    """
    try:
        files.open_regular(path).close()  # the package would wait for a pipe
        with safe_open(path, framework="pt", device=str(device or "cpu")) as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            shapes = {name: tuple(piece.get_shape()) for name, piece in slices.items()}
            dtypes = {name: piece.get_dtype() for name, piece in slices.items()}
            yield TensorFile(path, shapes, dtypes, file.metadata() or {}, file)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {files.reason(error)}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: is not a safetensors file, or is damaged: {error}") from error
