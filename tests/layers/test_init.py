"""Initial values: their distributions, generators, and constructors that leave parameters uninitialized."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.nn.functional import softplus

from lmzoo.layers.init import (
    constant,
    deferred,
    is_deferred,
    log_of_uniform,
    normal,
    small_init,
    step_sizes,
    uniform,
    uniform_fan_in,
)
from lmzoo.layers.linear import Linear


def drawn(init, *shape: int) -> torch.Tensor:
    w = torch.empty(shape)
    init(w, torch.Generator().manual_seed(0))
    return w


def test_normal_has_its_standard_deviation() -> None:
    assert abs(drawn(normal(0.5), 100, 100).std() / 0.5 - 1) < 0.03
    assert abs(drawn(normal(), 100, 100).std() / 0.02 - 1) < 0.03


def test_small_init_has_a_variance_of_two_fifths_of_the_width() -> None:
    assert drawn(small_init(40), 200, 200).var() == pytest.approx(2 / (5 * 40), rel=0.05)


def test_log_of_uniform_and_step_sizes_fill_their_bounds() -> None:
    rates, sizes = drawn(log_of_uniform(2, 10), 10000).exp(), softplus(drawn(step_sizes(1e-3, 0.1), 10000))
    assert abs(rates.mean() / 6 - 1) < 0.02
    assert abs(sizes.log().mean() / torch.tensor(1e-2).log() - 1) < 0.02
    for values, low, high in ((rates, 2, 10), (sizes, 1e-3, 0.1)):
        assert low * 0.999 < values.min() < low * 1.01
        assert high * 0.99 < values.max() < high * 1.001


@pytest.mark.parametrize(("init", "bound"), [(uniform(0.3), 0.3), (uniform_fan_in(2.0), 0.2), (uniform_fan_in(), 0.1)])
def test_uniform_fills_its_bounds(init, bound: float) -> None:
    w = drawn(init, 200, 100)
    assert 0.99 * bound < w.abs().max() <= bound
    assert abs(w.std() * 3**0.5 / bound - 1) < 0.03


def test_constant_is_constant() -> None:
    assert (drawn(constant(2.5), 7) == 2.5).all()


def test_initializers_draw_from_the_generator_alone() -> None:
    before = torch.get_rng_state()
    assert torch.equal(drawn(normal(), 5), drawn(normal(), 5))
    assert torch.equal(torch.get_rng_state(), before)


def test_initializers_can_be_pickled() -> None:
    assert torch.equal(drawn(pickle.loads(pickle.dumps(normal(0.1))), 3), drawn(normal(0.1), 3))


def test_deferred_constructors_draw_nothing() -> None:
    before = torch.get_rng_state()
    with deferred():
        assert is_deferred()
        layer = Linear(4, 4)
    assert not is_deferred()
    assert torch.equal(torch.get_rng_state(), before)
    layer.init_parameters(torch.Generator().manual_seed(0))
    assert layer.weight.std() > 0
