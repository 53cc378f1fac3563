"""Linear maps and embeddings: initial values and roles."""

from __future__ import annotations

import pytest
import torch

from lmzoo.errors import InputError
from lmzoo.layers.init import constant, deferred, normal
from lmzoo.layers.linear import Embedding, Linear


def test_linear_has_the_given_initial_values() -> None:
    layer = Linear(50, 60, init=normal(0.5), bias_init=constant(-1.0))
    assert abs(layer.weight.std() / 0.5 - 1) < 0.05
    assert (layer.bias == -1).all()
    assert (Linear(3, 4).bias == 0).all()
    assert Linear(3, 4, bias=False).bias is None


def test_linear_init_parameters_draws_from_the_generator() -> None:
    for layer in (Linear(8, 8), Embedding(8, 8)):
        layer.init_parameters(torch.Generator().manual_seed(3))
        first = layer.weight.detach().clone()
        layer.init_parameters(torch.Generator().manual_seed(3))
        assert torch.equal(layer.weight, first)


def test_embedding_has_the_given_initial_values_unless_deferred() -> None:
    assert abs(Embedding(50, 60).weight.std() / 0.02 - 1) < 0.05
    layer = Embedding(50, 60, init=constant(0.5))
    assert (layer.weight == 0.5).all()
    with torch.no_grad():
        layer.weight.zero_()
    with deferred():
        layer.reset_parameters()
    assert not layer.weight.any()


def test_linear_and_embedding_name_a_wrong_size() -> None:
    for make, message in (
        (lambda: Linear(None, 4), "Linear: d_in=None must be an integer, 0 or above"),  # type: ignore[arg-type]
        (lambda: Linear(4, -1), "Linear: d_out=-1 must be an integer, 0 or above"),
        (lambda: Embedding(1.5, 4), "Embedding: num_embeddings=1.5 must be an integer"),  # type: ignore[arg-type]
        (lambda: Embedding(3, 1 << 40), "Embedding: d_model=1099511627776 must be .* below"),
    ):
        with pytest.raises(InputError, match=f"^{message}"):
            make()


def test_embedding_declares_its_role() -> None:
    assert Embedding(5, 4, init=normal(1.0)).parameter_roles == {"weight": "embedding"}
