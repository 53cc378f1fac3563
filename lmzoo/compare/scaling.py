"""Scaling curves: the loss of a model as a function of its training FLOPs, fitted to several sizes.

The form is L = E + A C^-a: C is the number of training FLOPs, E the loss that the curve tends to, a the exponent
(Hoffmann et al. 2022, arXiv 2203.15556, with one variable instead of two). The intervals are of the bootstrap: the
losses of the seeds are drawn again with replacement, for each size on its own, and the curve is fitted to each draw.
Nothing is said outside of the measured range.
"""

# N: sizes of a model, S: seeds, R: draws of the bootstrap, X: points of a curve.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from lmzoo.compare.statistics import ALPHA

LEAST_SIZES = 3  # the curve has three parameters
DRAWS = 400
EXPONENTS = (1e-3, 4.0)  # the smallest and the largest that is fitted
POINTS = 200  # at which two curves are compared

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The curve of a model, with the range of FLOPs that was measured; without intervals for one seed.

    `drawn` holds the parameters of the draws, (R, 3); it is empty for one seed.
    """

    flops: Interval
    E: float  # nats per token
    A: float  # nats per token at C = 1
    a: float
    drawn: np.ndarray

    def loss(self, flops: np.ndarray) -> np.ndarray:
        """Return the loss at each number of FLOPs."""
        return _loss(np.array([self.E, self.A, self.a]), flops)

    def intervals(self) -> dict[str, Interval]:
        """Return the 95 % interval of each parameter by its name; empty for one seed."""
        if not len(self.drawn):
            return {}
        low, high = np.quantile(self.drawn, [ALPHA / 2, 1 - ALPHA / 2], axis=0)
        return {name: (float(low[n]), float(high[n])) for n, name in enumerate(("E", "A", "a"))}

    def band(self, flops: np.ndarray) -> np.ndarray:
        """Return the 95 % interval of the loss at each number of FLOPs, (2, X); not for one seed."""
        losses_RX = np.stack([_loss(parameters, flops) for parameters in self.drawn])
        return np.quantile(losses_RX, [ALPHA / 2, 1 - ALPHA / 2], axis=0)


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """The curves of two models cross at `flops`, above which `above` has the lower loss.

    `share` is the part of the draws in which the curves cross once within the range and in this direction, and
    `interval` the 95 % interval of these crossings (None if there are none); both are None for one seed.
    """

    below: str
    above: str
    flops: float
    share: float | None
    interval: Interval | None


def fit_curve(flops: ArrayLike, losses: ArrayLike, seed: int = 0) -> Curve:
    """Fit the losses of each size, (N, S), in nats per token, at its number of training FLOPs, (N).

    With `LEAST_SIZES` sizes the curve goes through the means unless a parameter is at its bound, so it does not show
    whether the form is right. `seed` is the same for all models: a draw takes the same seeds of each of them, so the
    draws of two curves are compared in pairs.
    """
    c_N, losses_NS = np.asarray(flops, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    assert losses_NS.ndim == 2
    assert c_N.size == len(losses_NS) >= LEAST_SIZES
    best = _fit(c_N, losses_NS.mean(axis=1))
    drawn = np.empty((0, 3))
    if losses_NS.shape[1] > 1:
        means_RN = draw_means(losses_NS, np.random.default_rng(seed))
        drawn = np.stack([_fit(c_N, means_N) for means_N in means_RN])
    E, A, a = map(float, best)
    return Curve(flops=(float(c_N.min()), float(c_N.max())), E=E, A=A, a=a, drawn=drawn)


def draw_means(losses_NS: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw the losses of each size again, with replacement; returns the means over the seeds of each draw, (R, N)."""
    seeds, mean_N = losses_NS.shape[1], losses_NS.mean(axis=1)
    chosen_RNS = random.integers(seeds, size=(DRAWS, *losses_NS.shape))
    means_RN = np.take_along_axis(losses_NS[None], chosen_RNS, axis=2).mean(axis=2)
    # The mean of S drawn values has (S - 1) / S of the variance that the mean of S seeds has.
    return mean_N + (means_RN - mean_N) * np.sqrt(seeds / (seeds - 1))


def crossings(curves: Mapping[str, Curve]) -> list[Crossing]:
    """Find where the curves of every two models cross once within the range that was measured for both."""
    found = []
    for one, two in combinations(curves, 2):
        first, second = curves[one], curves[two]
        low, high = max(first.flops[0], second.flops[0]), min(first.flops[1], second.flops[1])
        if low >= high:
            continue
        c_X = np.geomspace(low, high, POINTS)
        if first.loss(c_X)[0] > second.loss(c_X)[0]:
            one, two, first, second = two, one, second, first
        place = _overtaken(c_X, first.loss(c_X) - second.loss(c_X))
        if place is None:
            continue
        pairs = zip(first.drawn, second.drawn, strict=False)  # one of them may be empty
        places = [_overtaken(c_X, _loss(own, c_X) - _loss(other, c_X)) for own, other in pairs]
        known = [drawn for drawn in places if drawn is not None]
        share = len(known) / len(places) if places else None
        interval = None
        if known:
            start, end = np.quantile(known, [ALPHA / 2, 1 - ALPHA / 2])
            interval = (float(start), float(end))
        found.append(Crossing(below=one, above=two, flops=place, share=share, interval=interval))
    return found


def _loss(parameters: np.ndarray, flops: np.ndarray) -> np.ndarray:
    E, A, a = parameters
    return E + A * flops**-a


def _fit(flops: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Return E, A and a with the least squared error, none of them negative."""
    from scipy.optimize import minimize_scalar, nnls

    # FLOPs relative to their geometric mean m, and B = A m^-a: B is of the order of a loss, A is not.
    middle = float(np.exp(np.log(flops).mean()))

    def linear(log_a: float) -> tuple[np.ndarray, float]:
        """Return E and B for an exponent, and the error: for a known exponent the curve is linear in both."""
        powers = (flops / middle) ** -np.exp(log_a)
        return nnls(np.stack([np.ones_like(powers), powers], axis=1), losses)

    def error(log_a: float) -> float:
        return linear(log_a)[1]

    found = minimize_scalar(error, bounds=np.log(EXPONENTS), method="bounded", options={"xatol": 1e-6})
    (E, B), a = linear(found.x)[0], np.exp(found.x)
    return np.array([E, B * middle**a, a])


def _overtaken(c_X: np.ndarray, difference_X: np.ndarray) -> float | None:
    """Return where the difference becomes positive, if it changes its sign only there; linear between two points."""
    (at,) = np.nonzero(np.diff(np.sign(difference_X)))
    if len(at) != 1 or difference_X[0] > difference_X[-1]:
        return None
    before, after = difference_X[at[0]], difference_X[at[0] + 1]
    share = before / (before - after)
    return float(c_X[at[0]] * (c_X[at[0] + 1] / c_X[at[0]]) ** share)
