"""The check of models that are built on the meta device."""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.conformance import check_model
from lmzoo.layers.norm import RMSNorm
from tests.museum.base import MuseumConfig, Transformer


def test_meta_device_compares_shapes_and_logits() -> None:
    class Grows(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            rows = 2 if self.tokens.weight.is_meta else 3
            self.register_buffer("table", torch.zeros(rows))

    result = check_model(Grows, only=["meta_device"]).results[0]
    assert "table is (2,) torch.float32 on meta, and (3,) torch.float32 when built on cpu" in result.saw


def test_meta_device_compares_layers_with_layers_inside() -> None:
    class Outer(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.scale, self.inner = torch.nn.Parameter(torch.ones(width)), RMSNorm(width)

        def init_parameters(self, generator: torch.Generator | None) -> None:
            torch.nn.init.ones_(self.scale)

        def forward(self, x_BTD: Tensor) -> Tensor:
            return self.scale * self.inner(x_BTD)

    class Nested(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            self.norm = Outer(config.d_model)

    (result,) = check_model(Nested, only=["meta_device"]).results
    assert result.passed, result.saw
