"""Tests scaling curves: known curves are found again, and curves cross where they do and within the range only."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.optimize import curve_fit

from lmzoo.compare import scaling
from lmzoo.compare.scaling import Curve, crossings, fit_curve

FLOPS = np.array([1e12, 3e12, 1e13, 3e13, 1e14])


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "DRAWS", 60)


def losses(E: float, A: float, a: float, noise: float = 0.0, seeds: int = 4, number: int = 0) -> np.ndarray:
    random = np.random.default_rng(number)
    return (E + A * FLOPS**-a)[:, None] + noise * random.standard_normal((len(FLOPS), seeds))


@pytest.mark.parametrize(("E", "A", "a"), [(1.5, 3e3, 0.3), (1.2, 40.0, 0.12), (0.0, 30.0, 0.08)])
def test_fit_curve_finds_a_known_curve_again(E: float, A: float, a: float) -> None:
    curve = fit_curve(FLOPS, losses(E, A, a, seeds=1))
    assert (curve.E, curve.A, curve.a) == pytest.approx((E, A, a), rel=1e-3, abs=1e-3)
    assert curve.intervals() == {}
    assert curve.flops == (1e12, 1e14)


def test_fit_curve_agrees_with_a_fit_of_scipy_to_noisy_means() -> None:
    found = losses(1.5, 3e3, 0.3, noise=0.01)
    curve = fit_curve(FLOPS, found)

    def form(c: np.ndarray, E: float, B: float, a: float) -> np.ndarray:
        return E + B * c**-a

    E, B, a = curve_fit(form, FLOPS / 1e13, found.mean(axis=1), p0=(1, 1, 0.5))[0]
    assert (curve.E, curve.A, curve.a) == pytest.approx((E, B * 1e13**a, a), rel=1e-4)


def test_fit_curve_gives_intervals_that_hold_the_true_values() -> None:
    """In 100 comparisons with three seeds, 88 % of the intervals did."""
    held = []
    for number in range(40):
        found = fit_curve(FLOPS, losses(1.5, 3e3, 0.3, noise=0.01, seeds=3, number=number)).intervals()
        held.append([found["E"][0] < 1.5 < found["E"][1], found["a"][0] < 0.3 < found["a"][1]])
    assert (np.sum(held, axis=0) >= 34).all()


def test_fit_curve_gives_a_band_around_the_curve() -> None:
    curve = fit_curve(FLOPS, losses(1.5, 3e3, 0.3, noise=0.01))
    low, high = curve.band(FLOPS)
    assert ((low < curve.loss(FLOPS)) & (curve.loss(FLOPS) < high)).all()
    assert (high - low < 0.04).all(), "of the order of the noise"


def test_fit_curve_has_wider_intervals_with_more_noise() -> None:
    widths = []
    for noise in (0.002, 0.02):
        low, high = fit_curve(FLOPS, losses(1.5, 3e3, 0.3, noise=noise)).intervals()["a"]
        widths.append(high - low)
    assert widths[1] > 3 * widths[0]


def test_fit_curve_has_no_negative_parameter() -> None:
    rising = fit_curve(FLOPS, losses(1.5, 0.0, 0.3) + np.linspace(0, 0.1, 5)[:, None])
    assert min(rising.E, rising.A, rising.a) >= 0


def test_fit_curve_draws_each_size_on_its_own() -> None:
    """Differences between seeds that are the same at every size move single points, not the whole curve."""
    found = losses(1.5, 3e3, 0.3) + np.array([-0.02, 0.02, -0.02, 0.02])
    drawn = fit_curve(FLOPS, found).drawn
    ends = np.array([[E + A * c**-a for c in (FLOPS[0], FLOPS[-1])] for E, A, a in drawn])
    assert abs(np.corrcoef(ends.T)[0, 1]) < 0.4


def test_draw_means_vary_as_the_mean_of_the_seeds_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "DRAWS", 4000)
    found = losses(1.5, 3e3, 0.3, noise=0.01, seeds=3)
    drawn = scaling.draw_means(found, np.random.default_rng(0))
    assert drawn.std(axis=0) == pytest.approx(found.std(axis=1, ddof=1) / np.sqrt(3), rel=0.05)


def curve(E: float, A: float, a: float, flops: tuple[float, float] = (1e12, 1e14), seeds: int = 1) -> Curve:
    found = fit_curve(FLOPS, losses(E, A, a, noise=0.003 if seeds > 1 else 0, seeds=seeds))
    return Curve(flops=flops, E=found.E, A=found.A, a=found.a, drawn=found.drawn)


def test_crossings_are_where_two_curves_are_equal() -> None:
    low, steep = curve(1.5, 3e3 / 8, 0.22), curve(1.4, 3e3, 0.29)
    (crossing,) = crossings({"low": low, "steep": steep})
    assert (crossing.below, crossing.above) == ("low", "steep")
    at = np.array([crossing.flops])
    assert low.loss(at) == pytest.approx(steep.loss(at), abs=1e-5)
    assert (crossing.share, crossing.interval) == (None, None)


def test_crossings_outside_of_the_range_of_both_models_are_not_said() -> None:
    low, steep = curve(1.5, 3e3 / 8, 0.22), curve(1.4, 3e3, 0.29)
    (crossing,) = crossings({"low": low, "steep": steep})
    before = curve(1.4, 3e3, 0.29, flops=(1e12, crossing.flops * 0.9))
    assert crossings({"low": low, "steep": before}) == []
    after = curve(1.5, 3e3 / 8, 0.22, flops=(crossing.flops * 1.1, 1e14))
    assert crossings({"low": after, "steep": before}) == [], "the ranges do not meet"


def test_crossings_of_curves_that_cross_twice_are_not_said() -> None:
    points = np.array([1.0, 2.0, 3.0, 4.0])
    assert scaling._overtaken(points, np.array([-1.0, 1.0, 1.0, -1.0])) is None
    assert scaling._overtaken(points, np.array([-1.0, 1.0, 1.0, 1.0])) is not None


@pytest.mark.parametrize("names", [("low", "steep"), ("steep", "low")])
def test_crossings_count_the_draws_that_cross_in_the_same_direction(names: tuple[str, str]) -> None:
    low, steep = curve(1.5, 3e3 / 8, 0.22), curve(1.4, 3e3, 0.29)
    flat, other = ([found.E, found.A, found.a] for found in (low, steep))
    drawn = {"low": np.array([flat, flat, other, other]), "steep": np.array([other, flat, flat, flat])}
    curves = {name: dataclasses.replace(found, drawn=drawn[name]) for name, found in (("low", low), ("steep", steep))}
    (crossing,) = crossings({name: curves[name] for name in names})
    assert (crossing.below, crossing.above, crossing.share) == ("low", "steep", 0.25)
    never = {name: dataclasses.replace(found, drawn=np.array([flat, flat])) for name, found in curves.items()}
    (crossing,) = crossings(never)
    assert (crossing.share, crossing.interval) == (0, None)


def test_crossings_state_the_share_of_draws_that_cross() -> None:
    low, steep = curve(1.5, 3e3 / 8, 0.22, seeds=4), curve(1.4, 3e3, 0.29, seeds=4)
    (crossing,) = crossings({"low": low, "steep": steep})
    assert crossing.interval is not None
    assert crossing.interval[0] < crossing.flops < crossing.interval[1]
    assert crossing.share is not None
    assert 0.3 < crossing.share <= 1
