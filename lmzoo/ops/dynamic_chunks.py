"""Downsampling to the first token of each chunk, and upsampling with smoothing (H-Net, Hwang et al. 2025,
arXiv 2507.07955, section 2.2).

Each row of a batch has chunks of its own. `chosen_BT` marks the tokens that begin one, and p_BT is the probability of
that. A row's chunks come first in its row of (B, M, D); what follows them is padding.

`downsample` takes the tokens that begin a chunk. `upsample` smooths the outputs y of the chunks, so that an uncertain
chunk is mixed with the one before it, and gives each token the value of its chunk:

    s_m = p_m y_m + (1 - p_m) s_{m-1}          p_m is that of the token that begins chunk m
    out_t = s_m                                m is the last chunk that began at t or before it

The definitions are loops over tokens; the fast forms sort, scan and gather.

Legend: B batch, T time, M chunks, D model width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.linear_recurrence import linear_recurrence
from lmzoo.ops.precision import wide


def naive_downsample(x_BTD: Tensor, chosen_BT: Tensor, M: int) -> Tensor:
    """The definition, one row after another; arguments and results as in `downsample`."""
    rows = [x_TD[chosen_T][:M] for x_TD, chosen_T in zip(x_BTD, chosen_BT, strict=True)]
    return torch.stack([F.pad(row, (0, 0, 0, M - len(row))) for row in rows])


def downsample(x_BTD: Tensor, chosen_BT: Tensor, M: int) -> Tensor:
    """Returns the tokens that begin a chunk, (B, M, D), and zeros after the last one.

    M is at least the largest number of chunks of a row, and at most T.
    """
    positions_BM, present_BM = _chunk_positions(chosen_BT, M)
    chunks_BMD = x_BTD.gather(1, positions_BM[..., None].expand(-1, -1, x_BTD.shape[-1]))
    return chunks_BMD * present_BM[..., None]


def naive_upsample(
    y_BMD: Tensor, p_BT: Tensor, chosen_BT: Tensor, smoothed_BD: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one token after another; arguments and results as in `upsample`."""
    rows: list[Tensor] = []
    last: list[Tensor] = []
    y_BMD, p_BT = wide(y_BMD), wide(p_BT)
    for b, (y_MD, p_T, chosen_T) in enumerate(zip(y_BMD, p_BT, chosen_BT, strict=True)):
        s_D = torch.zeros_like(y_BMD[b].sum(0)) if smoothed_BD is None else smoothed_BD[b]
        chunks = iter(y_MD)
        values: list[Tensor] = []
        for p, chosen in zip(p_T, chosen_T.tolist(), strict=True):
            s_D = p * next(chunks) + (1 - p) * s_D if chosen else s_D
            values.append(s_D)
        rows.append(torch.stack(values))
        last.append(s_D)
    return torch.stack(rows), torch.stack(last)


def upsample(
    y_BMD: Tensor, p_BT: Tensor, chosen_BT: Tensor, smoothed_BD: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Smooths the outputs of the chunks and gives each token the value of its chunk.

    Args:
        y_BMD: the outputs, at most T; of each row, those after its last chunk are ignored.
        p_BT: the probabilities that a token begins a chunk.
        chosen_BT: whether it does.
        smoothed_BD: the value s of the last chunk before these tokens, or None for zeros.

    Returns:
        The values of the tokens (B, T, D) and the last one, float32 whatever the dtype of the input (float64 if that
        is).
    """
    B, M, D = y_BMD.shape
    y_BMD, p_BT = wide(y_BMD), wide(p_BT)
    smoothed_BD = y_BMD.new_zeros(B, D) if smoothed_BD is None else smoothed_BD
    positions_BM, present_BM = _chunk_positions(chosen_BT, M)
    p_BM1 = (p_BT.gather(1, positions_BM) * present_BM)[..., None]  # 0 after the last chunk, so that s stays
    y_BMD = y_BMD.masked_fill(~present_BM[..., None], 0.0)
    s_BMD, last_BD = linear_recurrence((1 - p_BM1).expand(-1, -1, D), p_BM1 * y_BMD, smoothed_BD)
    s_BMD = torch.cat([smoothed_BD[:, None], s_BMD], dim=1)
    chunk_BT = chosen_BT.long().cumsum(dim=1)  # 0 is the chunk that began before these tokens
    return s_BMD.gather(1, chunk_BT[..., None].expand(-1, -1, D)), last_BD


def _chunk_positions(chosen_BT: Tensor, M: int) -> tuple[Tensor, Tensor]:
    """Returns the positions of the first M chosen tokens of each row, and which of these exist."""
    positions_BM = (~chosen_BT).byte().argsort(dim=1, stable=True)[:, :M]
    return positions_BM, chosen_BT.gather(1, positions_BM)
