"""Statistics over seeds: means with intervals, paired differences, and the places that are certain.

Two models are told apart if two things hold: the paired t-test over the seeds rejects equality, after Holm's correction
for the number of pairs; and the difference of the means exceeds the noise of the pair, which is the standard deviation
over the seeds of one of the two models (their variances are averaged).

The rank of a model is a range: from 1 + the number of models that are certainly better, to the number of models that
are not certainly worse. "Certainly better" is transitive, "cannot be told apart" is not: a and b, and b and c, may be
indistinguishable while a and c are not. So models do not fall into groups of equals, and each has a range of its own.
"""

# P: pairs of models, N: seeds, K: keys, such as the points of a curve.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import numpy as np

Key = TypeVar("Key")

ALPHA = 0.05  # rate of wrong claims, over all pairs of a comparison
CONFIDENCE = 1 - ALPHA
POWER = 0.8  # probability of seeing a difference that exists
MOST_SEEDS = 1000  # larger numbers of seeds that would be needed are not computed


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean of a model's losses over its seeds, its confidence interval, and the standard deviation of one seed."""

    mean: float
    low: float
    high: float
    sd: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The difference of two models, `first` - `second`, over the same seeds.

    `p` is of the paired t-test, `p_corrected` is corrected for the number of pairs, `noise` is the smallest difference
    that can be a finding, and `more_seeds` is the number of seeds beyond the present ones for a probability of `POWER`
    to find a difference of this size (None: more than `MOST_SEEDS`, or a difference that is not above the noise).
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float
    noise: float
    told_apart: bool
    more_seeds: int | None


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """The statistics of a comparison; `noise` is the standard deviation over seeds, by the mean variance of models."""

    seeds: int
    noise: float
    means: Mapping[str, Mean]
    pairs: Sequence[Pair]
    ranks: Mapping[str, Sequence[int]]  # the best and the worst place that a model may have

    def equals(self, name: str) -> list[str]:
        """Return the models that cannot be told apart from the model `name`."""
        pairs = [pair for pair in self.pairs if not pair.told_apart and name in (pair.first, pair.second)]
        return [pair.second if pair.first == name else pair.first for pair in pairs]


def analyze(losses: Mapping[str, Sequence[float]]) -> Statistics:
    """Compute the statistics of the losses of each model, for the same two or more seeds in the same order."""
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in losses.items()}
    (seeds,) = {values.size for values in arrays.values()}
    pairs = tell_apart(arrays)
    for number, pair in enumerate(pairs):
        sd = float((arrays[pair.first] - arrays[pair.second]).std(ddof=1))
        needed = seeds_needed(pair.difference, sd, ALPHA / len(pairs), pair.noise)
        pairs[number] = replace(pair, more_seeds=None if needed is None else max(0, needed - seeds))
    return Statistics(
        seeds=seeds,
        noise=spread(list(arrays.values())),
        means={name: mean_interval(values) for name, values in arrays.items()},
        pairs=pairs,
        ranks=rank_ranges(list(arrays), pairs),
    )


def tell_apart(arrays: Mapping[str, np.ndarray]) -> list[Pair]:
    """Compare every two models; `more_seeds` stays None."""
    names = list(combinations(arrays, 2))
    if not names:
        return []
    low_P, high_P, p_P = paired_tests(np.stack([arrays[first] - arrays[second] for first, second in names]))
    corrected = holm(p_P.tolist())
    pairs = []
    for number, (first, second) in enumerate(names):
        difference = float((arrays[first] - arrays[second]).mean())
        noise = spread([arrays[first], arrays[second]])
        pairs.append(
            Pair(
                first=first,
                second=second,
                difference=difference,
                low=float(low_P[number]),
                high=float(high_P[number]),
                p=float(p_P[number]),
                p_corrected=corrected[number],
                noise=noise,
                told_apart=corrected[number] < ALPHA and abs(difference) > noise,
                more_seeds=None,
            )
        )
    return pairs


def mean_interval(values: np.ndarray) -> Mean:
    """Compute the mean and the interval of Student's t of two or more values."""
    from scipy import stats

    mean, sd = float(values.mean()), float(values.std(ddof=1))
    low, high = mean, mean
    if sd:
        low, high = stats.t.interval(CONFIDENCE, values.size - 1, loc=mean, scale=stats.sem(values))
    return Mean(mean=mean, low=float(low), high=float(high), sd=sd)


def paired_tests(differences_PN: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the confidence interval of each row's mean (low, high), and the p-value of the t-test that it is zero.

    Differences that agree to the last digits have no spread: the test is then certain (p is 0, or 1 if all are 0).
    """
    from scipy import stats

    low_P = differences_PN.mean(axis=1)
    high_P, p_P = low_P.copy(), (low_P == 0).astype(np.float64)
    spread_P = np.ptp(differences_PN, axis=1) > 1e-12 * np.abs(differences_PN).max(axis=1)
    if spread_P.any():
        tests = stats.ttest_1samp(differences_PN[spread_P], 0.0, axis=1)
        interval = tests.confidence_interval(CONFIDENCE)
        low_P[spread_P], high_P[spread_P], p_P[spread_P] = interval.low, interval.high, tests.pvalue
    return low_P, high_P, p_P


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's step-down method, in their order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for step, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[i]))
        corrected[i] = largest
    return corrected


def spread(groups: Sequence[np.ndarray]) -> float:
    """Return the standard deviation within groups of equal size."""
    return math.sqrt(math.fsum(float(values.var(ddof=1)) for values in groups) / len(groups)) if groups else 0.0


def rank_ranges(names: Sequence[str], pairs: Sequence[Pair]) -> dict[str, tuple[int, int]]:
    """Return the best and the worst place of each model, as far as the pairs that are told apart decide it."""
    better, worse = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for pair in pairs:
        if pair.told_apart:
            low, high = (pair.first, pair.second) if pair.difference < 0 else (pair.second, pair.first)
            better[high] += 1
            worse[low] += 1
    return {name: (1 + better[name], len(names) - worse[name]) for name in names}


def power(difference: float, sd: float, seeds: int, alpha: float, noise: float = 0.0) -> float:
    """Return the probability that this number of seeds finds a true difference, with its sign.

    The paired t-test must reject equality, and the mean difference must exceed the noise. Both happen if the mean is
    large enough, so the probability is nearly the smaller one of the two. `sd` is the standard deviation of the
    difference of one seed.
    """
    from scipy import stats

    error = sd / math.sqrt(seeds)
    critical = stats.t.ppf(1 - alpha / 2, seeds - 1)
    rejected = stats.nct.sf(critical, seeds - 1, abs(difference) / error)
    return float(min(rejected, stats.norm.sf(noise, abs(difference), error)))


def seeds_needed(difference: float, sd: float, alpha: float = ALPHA, noise: float = 0.0) -> int | None:
    """Return the smallest number of seeds whose `power` is at least `POWER`; None if above `MOST_SEEDS`.

    No number of seeds makes a difference that is not above the noise a finding.
    """
    if abs(difference) <= noise or difference == 0:
        return None
    if sd <= 1e-12 * abs(difference):
        return 2
    low, high = 1, MOST_SEEDS  # `low` is too few
    if power(difference, sd, high, alpha, noise) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(difference, sd, middle, alpha, noise) >= POWER else (middle, high)
    return high


def intervals(seeds: Sequence[Mapping[Key, float | None]]) -> dict[Key, tuple[float, float]]:
    """Return the confidence interval of the mean over the seeds for each key that all of them have, with a number."""
    if len(seeds) < 2:
        return {}
    from scipy import stats

    shared = [key for key in seeds[0] if all(seed.get(key) is not None for seed in seeds)]
    losses_NK = np.array([[seed[key] for key in shared] for seed in seeds], dtype=np.float64)
    mean_K = losses_NK.mean(axis=0)
    error_K = np.maximum(stats.sem(losses_NK, axis=0), math.ulp(1.0))  # of equal losses: an interval without a width
    low_K, high_K = stats.t.interval(CONFIDENCE, len(seeds) - 1, loc=mean_K, scale=error_K)
    return dict(zip(shared, zip(low_K.tolist(), high_K.tolist(), strict=True), strict=True))
