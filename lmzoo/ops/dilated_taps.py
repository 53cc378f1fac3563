"""The inputs that a dilated causal convolution reads: x_t and the inputs 1, 2, ... dilations before it.

    taps_t = [x_{t - (W-1) d}, ..., x_{t - d}, x_t]        W taps, dilation d, oldest first

The convolution is then one matrix product, `taps @ weight`, with the weight of `torch.nn.Conv1d` in the order (tap,
channel). The decoding state is the tail: the last (W - 1) d inputs. `naive_dilated_taps` is the definition as a loop
over time; `sliced_dilated_taps` takes W slices of the padded input.

Shapes: B batch, T time, D channels, W taps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def naive_dilated_taps(
    x_BTD: Tensor, width: int, dilation: int, tail_BSD: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `dilated_taps`."""
    padded_BTD = _prepend_tail(x_BTD, (width - 1) * dilation, tail_BSD)
    taps = []
    for t in range(x_BTD.shape[1]):
        taps.append(torch.cat([padded_BTD[:, t + k * dilation] for k in range(width)], dim=-1))
    return torch.stack(taps, dim=1), padded_BTD[:, x_BTD.shape[1] :].clone()


def sliced_dilated_taps(
    x_BTD: Tensor, width: int, dilation: int, tail_BSD: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The fast form, one slice per tap; arguments and results as in `dilated_taps`."""
    T = x_BTD.shape[1]
    padded_BTD = _prepend_tail(x_BTD, (width - 1) * dilation, tail_BSD)
    slices = [padded_BTD[:, k * dilation : k * dilation + T] for k in range(width)]
    return torch.cat(slices, dim=-1), padded_BTD[:, T:].clone()


def dilated_taps(x_BTD: Tensor, width: int, dilation: int, tail_BSD: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The taps of a dilated causal convolution.

    Args:
        x_BTD: the input.
        width: the number of taps; the last one is the present token.
        dilation: the distance between two taps.
        tail_BSD: the (width - 1) * dilation inputs before `x_BTD`, or None for zeros.

    Returns:
        The taps side by side, (B, T, width * D), oldest first, and the tail to continue from. The tail is a copy, so
        it does not keep the input in memory.
    """
    return sliced_dilated_taps(x_BTD, width, dilation, tail_BSD)


def _prepend_tail(x_BTD: Tensor, length: int, tail_BSD: Tensor | None) -> Tensor:
    if tail_BSD is None:
        return F.pad(x_BTD, (0, 0, length, 0))
    return torch.cat([tail_BSD.to(x_BTD.dtype), x_BTD], dim=1)
