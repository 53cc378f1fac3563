"""The base class of layers: parameters with initial values and roles."""

from __future__ import annotations

import pytest
import torch

from lmzoo.errors import ConfigError, InputError
from lmzoo.layers.init import constant, normal
from lmzoo.layers.layer import Layer


class Owner(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.own("scale", (3,), constant(2.0))
        self.own("experts", (2, 30, 40), normal(0.5), "matrices")


def test_own_creates_a_parameter_with_its_values_and_role() -> None:
    layer = Owner()
    assert [name for name, _ in layer.named_parameters()] == ["scale", "experts"]
    assert (layer.scale == 2).all()
    assert abs(layer.experts.std() / 0.5 - 1) < 0.1
    assert layer.parameter_roles == {"scale": "vector", "experts": "matrices"}


def test_own_of_a_matrix_needs_a_role() -> None:
    roles = "one of matrix, matrices, embedding, head, vector, constant$"
    with pytest.raises(ConfigError, match=rf"^Layer.w of shape \(2, 2\) needs a role: {roles}"):
        Layer().own("w", (2, 2), normal())
    with pytest.raises(ConfigError, match=rf"^Layer.w of shape \(3,\) has the role 'bias', which must be {roles}"):
        Layer().own("w", (3,), normal(), "bias")


def test_own_names_an_initial_value_that_is_no_function() -> None:
    with pytest.raises(ConfigError, match=r"^Layer.w: init=0.5 must be a function, such as constant\(0.5\)"):
        Layer().own("w", (2,), 0.5)  # type: ignore[arg-type]


def test_own_names_a_wrong_size() -> None:
    for size in (None, -1, 2.0, "3"):
        with pytest.raises(InputError, match=r"^Layer\.w\.shape\[1\]=.* must be an integer, 0 or above$"):
            Layer().own("w", (4, size), normal(), "matrix")  # type: ignore[arg-type]


def test_own_of_a_constant_is_not_trained() -> None:
    layer = Owner()
    layer.own("features", (4, 2), normal(), "constant")
    assert [name for name, p in layer.named_parameters() if not p.requires_grad] == ["features"]


def test_own_keeps_instances_separate() -> None:
    first, second = Owner(), Owner()
    first.own("more", (1,), constant(0.0))
    assert "more" not in second.parameter_roles


def test_init_parameters_draws_new_values_from_the_generator() -> None:
    layer = Owner()
    with torch.no_grad():
        layer.scale.zero_()
    layer.init_parameters(torch.Generator().manual_seed(1))
    first = layer.experts.detach().clone()
    layer.init_parameters(torch.Generator().manual_seed(1))
    assert (layer.scale == 2).all()
    assert torch.equal(layer.experts, first)
