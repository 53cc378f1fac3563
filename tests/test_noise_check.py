"""Tests scripts/noise_check: it counts the pairs in which the statistics of a comparison claim a difference."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers import load_script


def test_told_apart_counts_the_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script("noise_check", monkeypatch)
    losses = np.random.default_rng(0).normal(2.0, 0.01, 2 * script.SEEDS * script.PAIRS).tolist()
    assert script.told_apart(losses, 0.0) <= 2
    assert script.told_apart(losses, 1.0) == script.PAIRS
    losses[0] += 100.0  # one side of the first pair is too noisy to claim anything
    assert script.told_apart(losses, 1.0) == script.PAIRS - 1
