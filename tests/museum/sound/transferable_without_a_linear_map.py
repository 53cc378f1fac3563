"""Projections in a matrix of one's own, (D, 3 D), which multiplies from the right; they are declared as its views.

Ours: a mixer need not use nn.Linear to say where its projections are, and only views of a Linear's rows are measured.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.projections import Projection, output
from tests.museum.base import MuseumConfig
from tests.museum.offering import Offering, OfferingAttention


class Right(nn.Module):
    """`x @ weight`."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_in, d_out))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.weight, std=0.02, generator=generator)

    def flops(self, T: int) -> float:
        return 2.0 * self.weight.numel()

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD @ self.weight


class RightAttention(OfferingAttention):
    qkv: Right  # type: ignore[assignment]

    def __init__(self, config: MuseumConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.qkv = Right(config.d_model, 3 * config.d_model)

    def transferable(self) -> dict[str, Projection]:
        heads = (self.config.n_heads, self.config.d_model // self.config.n_heads)
        parts = zip("qkv", self.qkv.weight.chunk(3, dim=1), strict=True)
        views = {name: Projection(part.unflatten(1, heads).permute(1, 2, 0)) for name, part in parts}
        return {**views, "out": output(self.out, *heads)}


class MODEL(Offering):
    attention_class = RightAttention
