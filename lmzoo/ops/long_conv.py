"""A causal convolution of each channel with a filter as long as the text.

The core of Hyena (Poli et al. 2023, arXiv 2302.10866). For every batch row and channel,

    y_t = sum over s <= t of k_{t-s} u_s

`naive_long_conv` is this definition. One FFT of twice the length would compute it in O(T log T), but each output would
have the rounding error of all inputs, later ones too. `blocked_long_conv` is exactly causal and needs O(T log² T). It
computes what a block of C positions adds to itself with a triangular matrix, and doubles the blocks: of every two
neighbors, the first adds to the second by an FFT, which reads the first block alone. A position is later than all
inputs of the FFTs that it gets something from.

Legend: B batch, T time, S earlier inputs, D channels, L length of the filter; inside the blocked form C positions of a
block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.precision import wide_dtype, without_autocast

BLOCK_LENGTH = 64  # of the first blocks; of a shorter text, its length rounded up to a power of two
SHORTEST_BLOCKED = 8  # for shorter sequences the loop needs fewer calls


def naive_long_conv(u_BTD: Tensor, k_LD: Tensor, past_BSD: Tensor | None = None) -> Tensor:
    """The definition, one step after another; arguments and results as in `long_conv`."""
    inputs, k_LD, S = _wide_inputs(u_BTD, k_LD, past_BSD)
    ys = []
    for n in range(u_BTD.shape[1]):  # not over S + T: a loop fixes its length in a compiled step
        seen = inputs[:, : S + n + 1]
        ys.append((seen * k_LD[: seen.shape[1]].flip(0)).sum(dim=1))
    return torch.stack(ys, dim=1).to(u_BTD.dtype)


def blocked_long_conv(u_BTD: Tensor, k_LD: Tensor, past_BSD: Tensor | None = None) -> Tensor:
    """The fast form, exactly causal; arguments and results as in `long_conv`."""
    inputs, k_LD, S = _wide_inputs(u_BTD, k_LD, past_BSD)
    T = inputs.shape[1]
    length = 1 << (T - 1).bit_length()
    C = min(BLOCK_LENGTH, length)
    u_DBT = rearrange(F.pad(inputs, (0, 0, 0, length - T)), "b t d -> d b t").contiguous()
    k_DL = F.pad(k_LD[:T].T, (0, length - T))
    with without_autocast(u_BTD):
        y_DBT = (u_DBT.view(len(u_DBT), -1, C) @ toeplitz(k_DL[:, :C]).mT).view_as(u_DBT)
        while C < T:
            first = u_DBT.unflatten(-1, (-1, 2, C))[..., 0, :]
            spectrum = torch.fft.rfft(first, n=2 * C) * torch.fft.rfft(k_DL[:, : 2 * C])[:, None, None]
            # The first half of the result has wrapped around.
            y_DBT.unflatten(-1, (-1, 2, C))[..., 1, :].add_(torch.fft.irfft(spectrum, n=2 * C)[..., C:])
            C *= 2
    return rearrange(y_DBT[..., S:T], "d b t -> b t d").to(u_BTD.dtype)


def long_conv(u_BTD: Tensor, k_LD: Tensor, past_BSD: Tensor | None = None) -> Tensor:
    """A causal convolution of each channel, by the fastest form that fits.

    Args:
        u_BTD: the input.
        k_LD: the filters; the first row multiplies the present input. L is at least S + T.
        past_BSD: the inputs before `u_BTD`, or None for none.

    Returns:
        `y_BTD` in the dtype of `u_BTD`, computed in float32 (float64 if `u_BTD` is), under autocast too. Counts as a
        multiply-add for each present or earlier input.
    """
    (B, T, D), S = u_BTD.shape, 0 if past_BSD is None else past_BSD.shape[1]
    form = dispatch(T, naive_long_conv, blocked_long_conv, shortest=SHORTEST_BLOCKED)
    with counted_as(B * D * T * (2 * S + T + 1)):
        return form(u_BTD, k_LD, past_BSD)


def toeplitz(k_DC: Tensor) -> Tensor:
    """Returns the lower triangular matrices (D, C, C) whose elements t, s are k_{t-s}."""
    C = k_DC.shape[1]
    return F.pad(k_DC, (C - 1, 0)).unfold(1, C, 1).flip(-1)


def _wide_inputs(u_BTD: Tensor, k_LD: Tensor, past_BSD: Tensor | None) -> tuple[Tensor, Tensor, int]:
    """Returns all inputs and the filter in float32 or wider, and the number of earlier inputs."""
    dtype = wide_dtype(u_BTD.dtype)
    inputs = u_BTD if past_BSD is None else torch.cat([past_BSD.to(u_BTD.dtype), u_BTD], dim=1)
    assert len(k_LD) >= inputs.shape[1], f"a filter of {len(k_LD)} positions for {inputs.shape[1]} inputs"
    return inputs.to(dtype), k_LD.to(dtype), inputs.shape[1] - u_BTD.shape[1]
