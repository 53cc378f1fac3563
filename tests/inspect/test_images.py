"""Tests the maps: PNG files that a decoder reads back, whose opacity is the square root of the share."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest
import torch

from lmzoo.inspect.images import COLOR, data_uri, png


def decoded(content: bytes) -> tuple[dict[bytes, bytes], list[list[int]]]:
    """Read a PNG of a palette without filters: its chunks, whose sums are checked, and its pixels."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack(">I", content[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    width, height, depth, color, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, color, rest) == (8, 3, [0, 0, 0])
    lines = zlib.decompress(chunks[b"IDAT"])
    rows = [list(lines[r * (width + 1) + 1 : (r + 1) * (width + 1)]) for r in range(height)]
    assert all(lines[r * (width + 1)] == 0 for r in range(height))
    return chunks, rows


def test_png_has_a_pixel_for_each_number() -> None:
    levels = torch.randint(256, (3, 7), dtype=torch.uint8)
    chunks, rows = decoded(png(levels))
    assert rows == levels.tolist()
    assert chunks[b"PLTE"] == bytes(COLOR) * 256
    assert chunks[b"tRNS"] == bytes(range(256)), "the opacity of a pixel is its number"
    assert list(chunks) == [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"]


@pytest.mark.parametrize(("full", "expected"), [(1.0, [0, 128, 255, 255, 0, 0]), (4.0, [0, 64, 128, 255, 0, 0])])
def test_data_uri_scales_by_the_root_and_takes_what_is_not_finite(full: float, expected: list[int]) -> None:
    uri = data_uri(torch.tensor([[0.0, 0.25, 1.0, torch.inf, torch.nan, -3.0]]), full=full)
    assert uri.startswith("data:image/png;base64,")
    assert decoded(base64.b64decode(uri.partition(",")[2]))[1] == [expected]
    assert decoded(base64.b64decode(data_uri(torch.zeros(2, 2), full=0.0).partition(",")[2]))[1] == [[0, 0], [0, 0]]
