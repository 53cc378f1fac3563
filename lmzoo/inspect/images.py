"""Maps of numbers as PNG images for a page: one color whose opacity is the value, for light and dark pages.

The opacity is the square root of the share, so that small values are visible. A script can read the values back from
the opacities, so a page holds each map once.
"""

from __future__ import annotations

import base64
import struct
import zlib

from torch import Tensor

COLOR = (0x2F, 0x83, 0xC9)  # visible on white and on black
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png(levels_RC: Tensor) -> bytes:
    """Returns a PNG of opacities (R, C) uint8, one pixel for each, in `COLOR`: 0 is transparent, 255 is opaque."""
    rows, columns = levels_RC.shape
    # Each row begins with the number of its filter: 0, none. One palette entry for each opacity.
    lines = b"".join(b"\0" + bytes(row) for row in levels_RC.tolist())
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", bytes(COLOR) * 256),
        (b"tRNS", bytes(range(256))),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def data_uri(values_RC: Tensor, *, full: float) -> str:
    """Returns the map of values (R, C) as a data URI: `full` and more is opaque, 0, less or not a number is empty."""
    shares_RC = (values_RC.double().nan_to_num(nan=0.0, posinf=full) / (full or 1.0)).clamp(0, 1)
    return "data:image/png;base64," + base64.b64encode(png((255 * shares_RC.sqrt()).round().byte())).decode()
