"""Attention that forgets keeps, beside each key, the sum of the logarithms of all gates so far, in the model's dtype.

Ours: the sum grows with the text, and a copy in bfloat16 rounds it to whole numbers after some hundred tokens, while
only its differences matter. Forgetting attention is by Lin et al. 2025 (arXiv 2503.02130).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import lmzoo
from lmzoo.configs import require_heads
from lmzoo.layers.context import Context
from lmzoo.layers.init import constant
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.precision import wide
from lmzoo.state import TimeBuffer

CAUGHT_BY = "long_precision"
Cache = dict[str, TimeBuffer]


@dataclass(frozen=True, kw_only=True)
class ForgettingConfig(lmzoo.MixerConfig):
    n_heads: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self, rotated=False)


class Forgetting(Layer):
    """The score of a key fades by the gates of all tokens since; there are no positions."""

    reach = None
    state_growth = "linear"

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = Linear(d_model, 3 * d_model, bias=False)
        self.gate = Linear(d_model, n_heads, bias_init=constant(1.0))
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Cache:
        sizes = {"k": (self.n_heads, self.out.in_features // self.n_heads), "sum": (self.n_heads,)}
        sizes["v"] = sizes["k"]
        options = {"device": like.device, "dtype": like.dtype}
        return {name: TimeBuffer.empty(batch_size, max_len, *size, **options) for name, size in sizes.items()}

    def forward(self, x_BTD: Tensor, state: Cache | None, ctx: Context) -> tuple[Tensor, Cache | None]:
        q_BTHK, k_BSHK, v_BSHK = self.qkv(x_BTD).unflatten(-1, (3, self.n_heads, -1)).unbind(2)
        sum_BSH = F.logsigmoid(wide(self.gate(x_BTD))).cumsum(dim=1)
        if state is not None:
            before_BPH = state["sum"].entries()[:, -1:]
            new = {"k": k_BSHK, "v": v_BSHK, "sum": sum_BSH + before_BPH.sum(dim=1, keepdim=True)}
            state = {name: state[name].append(new[name]) for name in new}
            k_BSHK, v_BSHK, sum_BSH = (state[name].entries().to(new[name].dtype) for name in new)
        T, S = ctx.T, k_BSHK.shape[1]
        scores_BHTS = wide(torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK)) * q_BTHK.shape[-1] ** -0.5
        sum_BHS = sum_BSH.transpose(1, 2)
        scores_BHTS = scores_BHTS + sum_BHS[:, :, S - T :, None] - sum_BHS[:, :, None]
        later_TS = torch.ones(T, S, dtype=torch.bool, device=x_BTD.device).triu(S - T + 1)
        weights_BHTS = scores_BHTS.masked_fill(later_TS, -torch.inf).softmax(dim=-1).to(v_BSHK.dtype)
        return self.out(torch.einsum("bhts,bshk->bthk", weights_BHTS, v_BSHK).flatten(2)), state


class MODEL(lmzoo.MixerModel):
    config_class = ForgettingConfig

    def make_mixer(self, config: ForgettingConfig, layer: int) -> Forgetting:
        return Forgetting(config.d_model, config.n_heads)
