"""Diagonal state-space models that do not depend on the token, one for each channel (S4D).

Gu et al. 2022, arXiv 2206.11893. For every batch row and channel, with N complex states,

    h_t = a h_{t-1} + u_t
    y_t = 2 Re(c . h_t)

This is also the convolution of u with the filter k_t = 2 Re(c . a^t). A complex number is a pair of real ones in the
last axis, because compilers and lower precisions know only real numbers. |a| is at most 1, so no power of it overflows.

`naive_diagonal_ssm` is this definition. `chunked_diagonal_ssm` splits the sequence into chunks of C positions. With h
the state before a chunk,

    y_t    = sum over s <= t of k_{t-s} u_s + 2 Re(c a^{t+1} . h)          t = 0 ... C - 1
    next h = a^C h + sum over s of a^{C-1-s} u_s

All sums are matrix products for each channel. The authors compute one convolution of length T with an FFT instead.
There the filter has T values, each a sum over the states, which takes longer than the convolution; each output has the
rounding error of all tokens, so it is not exactly causal; and a state to start from needs a separate term.

Legend: B batch, T time, D channels, N states, 2 real and imaginary part; inside the chunked form M chunks of C
positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.diagonal_scan import powers, times
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.long_conv import toeplitz
from lmzoo.ops.precision import wide_dtype, without_autocast

CHUNK_LENGTH = 32
SHORTEST_CHUNKED = 4  # for shorter sequences the loop needs fewer calls


def naive_diagonal_ssm(
    u_BTD: Tensor, a_DN2: Tensor, c_DN2: Tensor, h_BDN2: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `diagonal_ssm`."""
    u, a_DN2, c_DN2, h_BDN2 = _wide_inputs(u_BTD, a_DN2, c_DN2, h_BDN2)
    ys = []
    for u_BD in u.unbind(1):
        h_BDN2 = times(a_DN2, h_BDN2) + F.pad(u_BD[..., None, None], (0, 1))
        ys.append(2 * times(c_DN2, h_BDN2)[..., 0].sum(dim=-1))
    return torch.stack(ys, dim=1).to(u_BTD.dtype), h_BDN2


def chunked_diagonal_ssm(
    u_BTD: Tensor, a_DN2: Tensor, c_DN2: Tensor, h_BDN2: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The fast form, in chunks of `CHUNK_LENGTH` positions; arguments and results as in `diagonal_ssm`."""
    u, a_DN2, c_DN2, h_BDN2 = _wide_inputs(u_BTD, a_DN2, c_DN2, h_BDN2)
    B, T = u.shape[:2]
    C = min(CHUNK_LENGTH, T)
    u_DCMB = rearrange(F.pad(u, (0, 0, 0, -T % C)), "b (m c) d -> d c m b", c=C)
    with without_autocast(u):
        power_CDN2 = powers(a_DN2, C)  # C + 1 of them
        read_CDN2 = 2 * times(c_DN2, power_CDN2)
        until_end_DNC = rearrange(power_CDN2[:C].flip(0), "c d n x -> d (n x) c")
        written_MBDN2 = rearrange(until_end_DNC @ u_DCMB.flatten(2), "d (n x) (m b) -> m b d n x", b=B, x=2)
        starts = [h_BDN2]
        for written_BDN2 in written_MBDN2[:-1].unbind(0):
            starts.append(times(power_CDN2[C], starts[-1]) + written_BDN2)
        start_DNM = rearrange(torch.stack(starts), "m b d n x -> d (n x) (m b)")
        re_CDN, im_CDN = read_CDN2.unbind(-1)
        from_start_DCN = rearrange([re_CDN[1:], -im_CDN[1:]], "x c d n -> d c (n x)")
        inside_DCC = toeplitz(re_CDN[:C].sum(dim=-1).T)
        y = torch.baddbmm(inside_DCC @ u_DCMB.flatten(2), from_start_DCN, start_DNM)
        # The last chunk may be shorter.
        rest = T - C * (len(starts) - 1)
        added_DNB = until_end_DNC[:, :, C - rest :] @ u_DCMB[:, :rest, -1]
        last_BDN2 = times(power_CDN2[rest], starts[-1]) + rearrange(added_DNB, "d (n x) b -> b d n x", x=2)
    y_BTD = rearrange(y, "d c (m b) -> b (m c) d", b=B)[:, :T]
    return y_BTD.to(u_BTD.dtype), last_BDN2


def diagonal_ssm(u_BTD: Tensor, a_DN2: Tensor, c_DN2: Tensor, h_BDN2: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A state-space model of each channel, by the fastest form that fits.

    Args:
        u_BTD: the input.
        a_DN2: the factors of the states at each step, complex numbers in the unit circle.
        c_DN2: the weights of the states in the output, and of what is written into them.
        h_BDN2: the states to start from, or None for zeros.

    Returns:
        `y_BTD` in the dtype of `u_BTD`, and the last states. Computation and states are float32 whatever the dtype of
        the input (float64 if `u_BTD` is), under autocast too. Counts as 12 FLOPs per token and state: a complex number
        times another one takes 4 multiply-adds, and its real part alone 2.
    """
    form = dispatch(u_BTD.shape[1], naive_diagonal_ssm, chunked_diagonal_ssm, shortest=SHORTEST_CHUNKED)
    with counted_as(12 * u_BTD.numel() * a_DN2.shape[1]):
        return form(u_BTD, a_DN2, c_DN2, h_BDN2)


def _wide_inputs(u_BTD: Tensor, a_DN2: Tensor, c_DN2: Tensor, h_BDN2: Tensor | None) -> tuple[Tensor, ...]:
    """Converts all inputs to float32 or wider; missing states become zeros."""
    dtype = wide_dtype(u_BTD.dtype)
    h_BDN2 = u_BTD.new_zeros(len(u_BTD), *a_DN2.shape) if h_BDN2 is None else h_BDN2
    return tuple(x.to(dtype) for x in (u_BTD, a_DN2, c_DN2, h_BDN2))
