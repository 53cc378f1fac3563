"""Weights of values that are shifted by a token, before a gate and a norm of all heads; rows are fused head by head.

Ours: what is offered and what is transferable says nothing about the order of rows, gates, norms or shifts of values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.projections import Projection, output
from lmzoo.model import Traits
from lmzoo.ops.rope import apply_rope, rope_table
from tests.museum.base import MuseumConfig
from tests.museum.offering import Offering, OfferingAttention


class GatedAttention(OfferingAttention):
    def __init__(self, config: MuseumConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.gate = Linear(config.d_model, config.d_model)
        self.all_heads = RMSNorm(config.d_model)

    def project(self, x_BTD: Tensor, position: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values before their shift, (B, T, H, K)."""
        q, k, v = self.qkv(x_BTD).unflatten(-1, (self.config.n_heads, 3, -1)).unbind(-2)
        options = {"device": x_BTD.device, "dtype": torch.float64}
        table = rope_table(position, x_BTD.shape[1], q.shape[-1], 10000.0, **options)
        return apply_rope(q, *table), apply_rope(k, *table), v

    def scores(self, x_BTD: Tensor, position: int) -> Tensor:
        q, k, _ = self.project(x_BTD, position)
        return torch.einsum("bthk,bshk->bths", q, k) / q.shape[-1] ** 0.5

    def init_state(self, B: int, max_len: int, like: Tensor) -> Any:
        H, K = self.config.n_heads, self.config.d_model // self.config.n_heads
        return {"past": super().init_state(B, max_len, like), "value": like.new_zeros(B, 1, H, K)}

    def forward(self, x_BTD: Tensor, state: Any, position: int) -> tuple[Tensor, Any]:
        q, k, v = self.project(x_BTD, position)
        before = torch.zeros_like(v[:, :1]) if state is None else state["value"].to(v.dtype)
        shifted = 0.75 * v + 0.25 * torch.cat([before, v[:, :-1]], dim=1)
        if state is not None:
            last = v[:, -1:].to(state["value"].dtype).clone()
            k, shifted, past = self.remember(state["past"], k, shifted)
            state = {"past": past, "value": last}
        y_BTD = self.attend(q, k, shifted, self.mask(x_BTD.shape[1], k.shape[1]))
        return self.out(self.all_heads(y_BTD) * self.gate(x_BTD).sigmoid()), state

    def transferable(self) -> dict[str, Projection]:
        H, K = self.config.n_heads, self.config.d_model // self.config.n_heads
        rows = self.qkv.weight.unflatten(0, (H, 3, K))
        parts = {name: Projection(rows[:, place]) for place, name in enumerate("qkv")}
        return {**parts, "out": output(self.out, H, K)}


class MODEL(Offering):
    attention_class = GatedAttention

    @property
    def traits(self) -> Traits:
        window = self.config.window  # and the token before it, of which the last value has a share
        return replace(super().traits, receptive_field=None if window is None else self.config.n_layers * window + 1)
