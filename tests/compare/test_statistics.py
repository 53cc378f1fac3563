"""Tests the statistics over seeds: scipy on the same numbers, known values, and rates of claims in simulations."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from lmzoo.compare.statistics import ALPHA, Pair, analyze, holm, intervals, power, rank_ranges, seeds_needed, tell_apart

REPETITIONS = 1000
LOSSES = {"a": [1.50, 1.52, 1.49, 1.51], "b": [1.60, 1.63, 1.58, 1.62], "c": [1.53, 1.50, 1.52, 1.51]}


def test_analyze_agrees_with_scipy() -> None:
    found = analyze(LOSSES)
    for name, values in LOSSES.items():
        low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
        mean = found.means[name]
        assert (mean.mean, mean.low, mean.high, mean.sd) == pytest.approx(
            (np.mean(values), low, high, stats.tstd(values))
        )
    expected = {
        pair: stats.ttest_rel(LOSSES[pair[0]], LOSSES[pair[1]]) for pair in [("a", "b"), ("a", "c"), ("b", "c")]
    }
    assert {(pair.first, pair.second) for pair in found.pairs} == expected.keys()
    for pair in found.pairs:
        test = expected[pair.first, pair.second]
        assert pair.p == pytest.approx(test.pvalue)
        assert (pair.low, pair.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert pair.difference == pytest.approx(np.mean(LOSSES[pair.first]) - np.mean(LOSSES[pair.second]))
    assert found.noise == pytest.approx(math.sqrt(np.mean([stats.tvar(values) for values in LOSSES.values()])))
    assert found.ranks == {"a": (1, 2), "b": (3, 3), "c": (1, 2)}
    assert found.equals("a") == ["c"]
    assert found.equals("b") == []


def test_holm_corrects_as_published_examples() -> None:
    """The first row is R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 34), (0.8, 15), (1.0, 10), (2.0, 5)])
def test_seeds_needed_agrees_with_published_tables(effect: float, seeds: int) -> None:
    """Sample sizes of the two-sided paired t-test at alpha 0.05 and power 0.8, as G*Power gives them."""
    assert seeds_needed(effect * 0.01, 0.01) == seeds
    assert seeds_needed(-effect, 1.0) == seeds


def test_power_agrees_with_a_simulation() -> None:
    rng = np.random.default_rng(0)
    tests = stats.ttest_1samp(rng.normal(0.02, 0.02, (4000, 6)), 0.0, axis=1)
    assert power(0.02, 0.02, 6, 0.05) == pytest.approx((tests.pvalue < 0.05).mean(), abs=0.025)


def test_analyze_names_the_seeds_that_are_missing() -> None:
    losses = {"a": [1.50, 1.53, 1.49], "b": [1.54, 1.53, 1.55], "c": [1.49, 1.51, 1.53]}
    pair, none, _ = analyze(losses).pairs
    sd = stats.tstd(np.subtract(losses["a"], losses["b"]))
    needed = seeds_needed(pair.difference, sd, ALPHA / 3, pair.noise)
    assert needed is not None
    assert pair.more_seeds == needed - 3 > 0
    given = (pair.difference, sd)
    enough, few = (power(*given, seeds, ALPHA / 3, pair.noise) for seeds in (needed, needed - 1))
    assert enough >= 0.8 > few
    assert abs(none.difference) < none.noise
    assert none.more_seeds is None
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(1e-9, 1.0) is None


@pytest.mark.parametrize("effect", [1.1, 1.5, 2.5])
def test_seeds_needed_are_enough_to_tell_two_models_apart(effect: float) -> None:
    """A difference near the noise needs many more seeds than a t-test alone: its mean must exceed the noise, too."""
    rng, sigma = np.random.default_rng(0), 0.01
    needed = seeds_needed(effect * sigma, sigma * math.sqrt(2), noise=sigma)
    assert needed is not None
    found = 0
    for _ in range(200):
        first, second = rng.normal(0, sigma, needed), rng.normal(effect * sigma, sigma, needed)
        found += tell_apart({"first": first, "second": second})[0].told_apart
    assert 0.7 <= found / 200 <= 0.93
    assert seeds_needed(0.99 * sigma, sigma, noise=sigma) is None


def test_analyze_of_losses_without_spread() -> None:
    """A model without randomness: the same loss for each seed."""
    found = analyze({"a": [1.0, 1.0, 1.0], "b": [1.1, 1.1, 1.1], "c": [1.0, 1.0, 1.0]})
    assert found.noise == 0
    assert (found.means["a"].low, found.means["a"].high) == (1.0, 1.0)
    assert found.ranks == {"a": (1, 2), "b": (3, 3), "c": (1, 2)}


def test_analyze_claims_nothing_below_the_noise() -> None:
    """Many seeds make any difference significant, but one that is smaller than the spread of a seed is no finding."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 0.02, 40), rng.normal(0, 0.002, 40)
    (pair,) = analyze({"a": list(shared), "b": list(shared + own + 0.01)}).pairs
    assert pair.p_corrected < 1e-6
    assert pair.noise > abs(pair.difference)
    assert not pair.told_apart


def test_tell_apart_finds_an_order_that_is_transitive() -> None:
    """So a model that nothing is certainly better than, if it is the only one, is told apart from every other."""
    rng, chains = np.random.default_rng(0), 0
    for _ in range(150):
        seeds = int(rng.integers(2, 6))
        losses = {name: rng.normal(rng.normal(), 10 ** rng.uniform(-3, 0), seeds) for name in "abcde"}
        apart = [pair for pair in tell_apart(losses) if pair.told_apart]
        better = {(p.first, p.second) if p.difference < 0 else (p.second, p.first) for p in apart}
        for low, middle in better:
            for high in (last for first, last in better if first == middle):
                chains += 1
                assert (low, high) in better
    assert chains > 50


def test_analyze_does_not_depend_on_the_order_of_the_models() -> None:
    rng = np.random.default_rng(1)
    losses = {name: list(rng.normal(1.5, 0.1, 4)) for name in "abcdefgh"}
    found, turned = analyze(losses), analyze(dict(reversed(losses.items())))
    assert turned.noise == found.noise
    assert turned.ranks == found.ranks
    others = {(pair.second, pair.first): pair for pair in turned.pairs}
    for pair in found.pairs:
        same = others[pair.first, pair.second]
        assert -same.difference == pair.difference
        assert (same.p_corrected, same.noise, same.more_seeds) == (pair.p_corrected, pair.noise, pair.more_seeds)


def test_rank_ranges_need_no_groups() -> None:
    """Only a and c are told apart: b may be anywhere."""

    def pair(first: str, second: str, told_apart: bool) -> Pair:
        rest = dict.fromkeys(("low", "high", "p", "p_corrected", "noise"), 0.0)
        return Pair(first=first, second=second, difference=-1.0, told_apart=told_apart, more_seeds=None, **rest)

    pairs = [pair("a", "b", False), pair("b", "c", False), pair("a", "c", True)]
    assert rank_ranges(["a", "b", "c"], pairs) == {"a": (1, 2), "b": (1, 3), "c": (2, 3)}


def claims(means: list[float], seeds: int, rng: np.random.Generator) -> bool:
    """Simulate losses with a spread of 0.01 around each mean, with an effect of the seed that the models share."""
    shared = rng.normal(0, 0.01, seeds)
    losses = {f"m{i}": mean + shared + rng.normal(0, 0.01, seeds) for i, mean in enumerate(means)}
    return any(pair.told_apart for pair in tell_apart(losses))


@pytest.mark.parametrize(("models", "seeds"), [(2, 3), (2, 10), (5, 3)])
def test_analyze_rarely_tells_a_model_apart_from_itself(models: int, seeds: int) -> None:
    """At most at the stated rate, over all pairs together, with three standard deviations for the simulation."""
    rng = np.random.default_rng(models * seeds)
    found = sum(claims([1.5] * models, seeds, rng) for _ in range(REPETITIONS))
    assert found / REPETITIONS <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / REPETITIONS)


@pytest.mark.parametrize(("seeds", "rate"), [(3, 0.4), (4, 0.75), (5, 0.85)])
def test_analyze_finds_a_difference_of_three_standard_deviations(seeds: int, rate: float) -> None:
    rng = np.random.default_rng(seeds)
    found = sum(claims([1.5, 1.53], seeds, rng) for _ in range(REPETITIONS))
    assert found / REPETITIONS >= rate


def test_statistics_import_scipy_only_when_used() -> None:
    script = "import lmzoo.compare.statistics, sys; assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_intervals_are_of_the_keys_that_all_seeds_have() -> None:
    seeds = [{"a": 1.0, "b": 2.0, "c": None, "d": 1.5}, {"d": 1.5, "a": 1.2, "c": 3.0}, {"a": 1.1, "c": 3.0, "d": 1.5}]
    found = intervals(seeds)
    assert list(found) == ["a", "d"]
    assert found["a"] == pytest.approx(stats.t.interval(0.95, 2, loc=1.1, scale=stats.sem([1.0, 1.2, 1.1])))
    assert found["d"] == pytest.approx((1.5, 1.5))
    assert intervals(seeds[:1]) == {}
