"""Cuts sequences into chunks, and chunks into tiles, for algorithms that compute all positions of a chunk at once.

Legend: B batch, T time, H heads, N chunks of C positions, M = B * H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 1 << 17  # numbers in a tensor of a tile: less fits better into the cache, but takes more calls


def padded(x_BTH: Tensor, C: int) -> Tensor:
    """Adds zeros to a tensor (B, T, H, ...) up to a whole chunk: a key of zero and a decay of one change no memory."""
    missing = -x_BTH.shape[1] % C
    return F.pad(x_BTH, (0, 0) * (x_BTH.ndim - 2) + (0, missing)) if missing else x_BTH


def in_chunks(x_BTH: Tensor, C: int) -> Tensor:
    """Returns a view of the chunks of a tensor (B, T, H, ...), (N, B, H, C, ...)."""
    B, T, H = x_BTH.shape[:3]
    return x_BTH.view(B, T // C, C, H, *x_BTH.shape[3:]).transpose(0, 1).transpose(2, 3)


def tiles(N: int, size: int) -> list[slice]:
    """Returns tiles of about the same number of chunks, at most `TILE` numbers each if a chunk has `size` numbers."""
    count = max(1, min(N, -(-N * size // TILE)))
    chunks = -(-N // count)
    return [slice(n, min(n + chunks, N)) for n in range(0, N, chunks)]


def steps(x_L: Tensor, N: int) -> tuple[Tensor, ...]:
    """Returns the N chunks of a tile whose tensors have one axis for chunks, rows and heads."""
    return x_L.view(N, len(x_L) // N, *x_L.shape[1:]).unbind(0)


def sums_of_later(grad_NBHC: Tensor, grad_BH: Tensor) -> Tensor:
    """Returns for each position the sum of its and all later gradients of a tile, and of that at the tile's end."""
    in_chunk = grad_NBHC.flip(-1).cumsum(-1).flip(-1)
    in_tile = in_chunk[..., 0].flip(0).cumsum(0).flip(0)
    after_NBH = torch.cat((in_tile[1:] + grad_BH, grad_BH[None]))
    return in_chunk + after_NBH[..., None]
