"""Tests of the dropout mask on CPUs: the correct share of zeros at all positions, independent values."""

from __future__ import annotations

import pytest
import torch

from lmzoo.ops.cpu.dropout import dropout_noise


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_noise_share_of_zeros_and_scale(p: float, dtype: torch.dtype) -> None:
    """Checked also for each of the four values that come from one 64-bit word."""
    torch.manual_seed(0)
    noise = dropout_noise(torch.empty(1000, 101, dtype=dtype), p)
    assert noise.dtype == dtype
    assert noise.unique().tolist() == [0, torch.tensor(1 / (1 - p)).to(dtype).item()]
    for part in (noise, *(noise.flatten()[i::4] for i in range(4))):
        error = (p * (1 - p) / part.numel()) ** 0.5
        assert abs((part == 0).double().mean().item() - p) < 5 * error


def test_dropout_noise_of_neighbors_is_independent() -> None:
    torch.manual_seed(0)
    dropped = (dropout_noise(torch.empty(100_000), 0.5) == 0).double()
    for distance in (1, 2, 3, 4, 5):
        both = (dropped[distance:] * dropped[:-distance]).mean().item()
        assert abs(both - 0.25) < 0.01


@pytest.mark.parametrize("p", [1e-9, 1 - 1e-9])
def test_dropout_noise_with_p_near_0_or_1_does_not_overflow(p: float) -> None:
    torch.manual_seed(0)
    zeros = (dropout_noise(torch.empty(10_000), p) == 0).double().mean().item()
    assert abs(zeros - p) < 0.01
