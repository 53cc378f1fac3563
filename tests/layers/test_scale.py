"""A multiplication by a number."""

from __future__ import annotations

import torch

from lmzoo.layers.linear import Linear
from lmzoo.layers.scale import Scale
from tests.helpers import seeded


def test_scale_multiplies_its_input_or_the_output_of_a_head() -> None:
    x_BD, head = torch.randn(2, 4, generator=seeded()), Linear(4, 3)
    assert torch.equal(Scale(2.5)(x_BD), 2.5 * x_BD)
    scaled = Scale(2.5, head)
    assert torch.equal(scaled(x_BD), 2.5 * head(x_BD))
    assert scaled.weight is head.weight
