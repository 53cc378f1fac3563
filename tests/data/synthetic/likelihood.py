"""Compares an entropy rate with the mean negative log-likelihood of a text, character by character."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from lmzoo.data.synthetic import EntropyRate

BLOCK = 500  # characters: the means over blocks are nearly independent of each other


def require_typical(nats: Sequence[float], rate: EntropyRate) -> None:
    """Assert that the mean of the nats lies within four standard errors of the rate, and that this is a close test."""
    means = [fmean(nats[start : start + BLOCK]) for start in range(0, len(nats) - BLOCK + 1, BLOCK)]
    error = stdev(means) / math.sqrt(len(means))
    assert error < 0.01
    assert abs(fmean(means) - rate.nats) < 4 * error + rate.error
