"""How far two results differ, and where: the words every check uses to report it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lmzoo.conformance.report import Fault

# float32 sums in another order, relative to the largest value: what a different batch or split may cost.
ROUNDING = 1e-4


def difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference relative to the scale of `expected` (at least 1); infinite when either is not finite."""
    if actual.shape != expected.shape:
        raise Fault(f"shape {tuple(actual.shape)} instead of {tuple(expected.shape)}")
    if actual.numel() == 0:
        return 0.0
    worst = (actual.double() - expected.double()).abs().max().item()
    return worst / max(1.0, expected.abs().max().item()) if math.isfinite(worst) else math.inf


def first_position(actual_BTV: Tensor, expected_BTV: Tensor, tolerance: float = 0.0) -> str:
    """The first position (then row) where two (B, T, ...) tensors differ by more than `tolerance`."""
    off_BTV = ~((actual_BTV - expected_BTV).abs() <= tolerance * max(1.0, expected_BTV.abs().max().item()))
    row_T = off_BTV.flatten(2).any(2)
    t = int(row_T.any(0).nonzero()[0])
    row = int(row_T[:, t].nonzero()[0])
    return f"position {t} of row {row}"


def require_equal(actual: Tensor, expected: Tensor, what: str, where: str, tolerance: float = ROUNDING) -> float:
    """Raise `Fault` when the two differ by more than `tolerance`; returns by how much they do."""
    off = difference(actual, expected)
    if not off <= tolerance:
        size = "is not finite" if math.isinf(off) else f"is off by {off:.2g} of the largest value"
        raise Fault(f"{what} {size} (allowed {tolerance:g}); look at {where}")
    return off


def require_same_bits(actual: Tensor, expected: Tensor, what: str, where: str) -> None:
    """Raise `Fault` unless the two are equal bit by bit."""
    if not torch.equal(actual, expected):
        raise Fault(
            f"{what} is off by {difference(actual, expected):.2g}, and should be the same bits; look at {where}"
        )
