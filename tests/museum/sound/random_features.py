"""Linear attention by positive random features, whose directions are drawn once and never trained.

Performer (Choromanski et al. 2020, arXiv 2009.14794). Trained matrices may be 1000 times as large; the directions not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import lmzoo
from lmzoo.configs import require_heads, require_positive
from lmzoo.layers.context import Context
from lmzoo.layers.init import normal
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.precision import wide, wide_dtype, without_autocast


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig(lmzoo.MixerConfig):
    n_heads: int = 2
    n_features: int = 12  # of each head

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self, rotated=False)
        require_positive(self, "n_features")


class RandomFeatures(Layer):
    """phi(x) = exp(w x - |x|^2 / 2); the state (B, H, M, K + 1) sums phi(k) v, and in its last column phi(k)."""

    directions_HKM: Tensor

    def __init__(self, config: FeaturesConfig) -> None:
        super().__init__()
        self.n_heads, head_dim = config.n_heads, config.d_model // config.n_heads
        self.qkv = Linear(config.d_model, 3 * config.d_model, bias=False)
        self.own("directions_HKM", (self.n_heads, head_dim, config.n_features), normal(1.0), "constant")
        self.out = Linear(config.d_model, config.d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        H, K, M = self.directions_HKM.shape
        return like.new_zeros(batch_size, H, M, K + 1, dtype=wide_dtype(like.dtype))

    def features(self, x_BTHK: Tensor) -> Tensor:
        x_BTHK = x_BTHK * x_BTHK.shape[-1] ** -0.25
        along_BTHM = torch.einsum("bthk,hkm->bthm", x_BTHK, wide(self.directions_HKM))
        return (along_BTHM - x_BTHK.square().sum(dim=-1, keepdim=True) / 2).exp()

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        q_BTHK, k_BTHK, v_BTHK = wide(self.qkv(x_BTD)).unflatten(-1, (3, self.n_heads, -1)).unbind(2)
        with without_autocast(x_BTD):
            q_BTHM, k_BTHM = self.features(q_BTHK), self.features(k_BTHK)
            v_BTHV = torch.cat([v_BTHK, torch.ones_like(v_BTHK[..., :1])], dim=-1)
            S_BHMV = self.init_state(len(x_BTD), 0, v_BTHV) if state is None else state
            read = []
            for q_BHM, k_BHM, v_BHV in zip(q_BTHM.unbind(1), k_BTHM.unbind(1), v_BTHV.unbind(1), strict=True):
                S_BHMV = S_BHMV + torch.einsum("bhm,bhv->bhmv", k_BHM, v_BHV)
                read.append(torch.einsum("bhm,bhmv->bhv", q_BHM, S_BHMV))
        y_BTHV = torch.stack(read, dim=1)
        y_BTD = (y_BTHV[..., :-1] / (y_BTHV[..., -1:] + 1e-6)).flatten(2).to(x_BTD.dtype)
        return self.out(y_BTD), None if state is None else S_BHMV


class MODEL(lmzoo.MixerModel):
    config_class = FeaturesConfig

    def make_mixer(self, config: FeaturesConfig, layer: int) -> RandomFeatures:
        return RandomFeatures(config)
