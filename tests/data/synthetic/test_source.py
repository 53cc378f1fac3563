"""Tests of what all synthetic sources share."""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from lmzoo.data.synthetic.source import EntropyRate, Weights, random_bits, stationary


def test_weights_draws_each_number_as_often_as_its_weight() -> None:
    weights = Weights([3, 1, 4])
    assert [weights.draw(number) for number in range(16)] == [0, 0, 0, 1, 2, 2, 2, 2] * 2
    assert weights.probabilities.tolist() == [3 / 8, 1 / 8, 4 / 8]
    assert weights.entropy == pytest.approx(3 / 8 * math.log(8 / 3) + math.log(8) / 8 + math.log(2) / 2)


def test_random_bits_are_the_same_everywhere_and_differ_by_key() -> None:
    assert list(islice(random_bits(0), 3)) == [213000021201967259, 4455796210202625458, 2055444239878205049]
    assert len({next(random_bits(*key)) for key in ((0, 0), (0, 1), (1, 0))}) == 3


def test_random_bits_are_uniform() -> None:
    counts = Counter(number % 8 for number in islice(random_bits(5), 40_000))
    assert all(abs(counts[n] - 5000) < 5 * math.sqrt(5000) for n in range(8))


def test_stationary_is_left_unchanged_by_the_transition() -> None:
    transition = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.5, 0.0, 0.5]])
    share = stationary(transition)
    assert share.sum() == pytest.approx(1)
    assert share @ transition == pytest.approx(share)
    assert np.linalg.matrix_power(transition, 200)[1] == pytest.approx(share)


def test_entropy_rate_states_its_error() -> None:
    assert str(EntropyRate(1.25, 0.0)) == "1.250000 nats per character (exact up to rounding)"
    assert str(EntropyRate(1.25, 6.2e-8)) == "1.250000 nats per character (within 6e-08)"
