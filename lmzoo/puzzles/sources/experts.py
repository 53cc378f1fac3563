"""A transformer with experts: a router sends each token to two of several small feed-forward layers.

The load is balanced without an auxiliary loss (Wang et al. 2024, arXiv 2408.15664): a bias is added to the
probabilities of the router when the experts are chosen, not when they are weighted. In training, each forward pass
lowers the bias of the experts that got more than their share, and raises the others.

Legend: B batch, T time, D model width, E experts, F inner width of an expert.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmzoo
from lmzoo.configs import require_heads
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Rope
from lmzoo.layers.init import normal
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.stack import Residual, Stack
from lmzoo.ops.precision import wide
from lmzoo.ops.stable_topk import stable_topk

CHOSEN = 2  # experts for each token
BIAS_STEP = 1e-3


class Experts(Layer):
    """The weighted sum of the `CHOSEN` experts with the highest scores. All are computed, which is simple and slow."""

    reach = 1
    bias_E: Tensor

    def __init__(self, d_model: int, d_ff: int, n_experts: int) -> None:
        super().__init__()
        self.n_experts = n_experts
        self.router = Linear(d_model, n_experts, bias=False)
        self.up = Linear(d_model, n_experts * d_ff, bias=False)
        self.own("down", (n_experts, d_model, d_ff), normal(), role="matrices")
        self.active = {"down": CHOSEN / n_experts}  # the share of its numbers that a token uses
        self.register_buffer("bias_E", torch.zeros(n_experts))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Sets the weights to new initial values, and the bias to zero."""
        super().init_parameters(generator)
        self.bias_E.zero_()

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Maps (B, T, D) to (B, T, D)."""
        p_BTE = wide(self.router(x_BTD)).softmax(dim=-1)
        chosen_BTE = self.choose(p_BTE.detach() + self.bias_E)
        if self.training:
            self.balance(chosen_BTE)
        inner_BTEF = F.silu(self.up(x_BTD)).unflatten(-1, (self.n_experts, -1))
        weighted_BTEF = (p_BTE * chosen_BTE)[..., None].to(inner_BTEF.dtype) * inner_BTEF
        return torch.einsum("btef,edf->btd", weighted_BTEF, self.down.to(inner_BTEF.dtype))

    def choose(self, scores_BTE: Tensor) -> Tensor:
        """Returns 1 where an expert is chosen, else 0."""
        _, best = stable_topk(scores_BTE, CHOSEN, dim=-1)
        return torch.zeros_like(scores_BTE).scatter(-1, best, 1.0)

    @torch.no_grad()
    def balance(self, chosen_BTE: Tensor) -> None:
        """Moves the bias against the load of the experts."""
        load_E = chosen_BTE.mean(dim=(0, 1))
        self.bias_E -= BIAS_STEP * (load_E - load_E.mean()).sign()


@dataclass(frozen=True, kw_only=True)
class PuzzleConfig(lmzoo.DecoderConfig):
    """Settings of the model, beside the sizes."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}

    n_heads: int = 4
    d_ff: int = 32
    n_experts: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self)


@lmzoo.register_model("puzzle")
class Puzzle(lmzoo.Decoder):
    """A transformer with experts."""

    config_class: ClassVar[type[PuzzleConfig]] = PuzzleConfig

    def block(self, config: Any, layer: int) -> nn.Module:
        """Returns the block at depth `layer`."""
        attention = Attention(config.d_model, config.n_heads, rope=Rope())
        experts = Experts(config.d_model, config.d_ff, config.n_experts)
        return Stack(Residual(self.make_norm(config), inner) for inner in (attention, experts))
