"""Nemotron-H (NVIDIA 2025, arXiv 2504.03624): Mamba-2, attention and feed-forward layers, one after another.

Distinctive: a layer is one of the three, each after a norm of its own, so their numbers are chosen freely: about half
are feed-forward layers and few are attention (4 of 52 in Nemotron-H-8B), without positions, which the recurrence gives.
Feed-forward layers are plain, with a squared ReLU (So et al. 2021, arXiv 2109.08668), or in Nemotron 3 many such layers
of which a token uses few, as in DeepSeek-V3 ("experts"). Mamba-2 has several groups of heads and a least step size.
Initial values: N(0, 0.02²) for all matrices but Mamba-2's, which are those of its authors,
with its output scaled by depth. Deviations: query, key and value share one projection; filters get no weight decay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from lmzoo.configs import (
    require_between,
    require_divides,
    require_experts,
    require_heads,
    require_positive,
    set_default,
)
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.init import uniform_fan_in
from lmzoo.layers.mamba2 import Mamba2
from lmzoo.layers.mlp import MLP, squared_relu
from lmzoo.layers.pattern import pattern
from lmzoo.layers.shared_experts import SharedExperts, best_of_group
from lmzoo.layers.stack import Residual
from lmzoo.registry import register_model

LAYERS = ("mamba2", "attention", "mlp", "experts")


@dataclass(frozen=True, kw_only=True)
class NemotronHConfig(DecoderConfig):
    """The pattern and the sizes of its layers, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ssm": 16, "d_expert": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"head_dim": 5, "ssm_groups": 2},
        {"pattern": "experts mamba2", "expert_groups": 4, "top_groups": 1},
        {"pattern": "experts", "balance_bias": False, "normalize": False, "n_shared": 0},
    )

    pattern: str = "mamba2 mlp mamba2 attention mlp"  # layers from bottom to top, repeated up to n_layers
    n_layers: int = 5  # number of layers of all kinds
    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    head_dim: int | None = None  # width of a head of attention; None: d_model / n_heads
    d_ff: int | None = None  # width of the feed-forward layers; None: 4 d_model
    d_ssm: int | None = None  # inner width of Mamba-2; None: 2 d_model
    ssm_heads: int = 8  # heads of Mamba-2
    ssm_groups: int = 1  # groups of heads of Mamba-2 that share input and output maps
    d_state: int = 16  # states per channel
    d_conv: int = 4  # length of the convolution's filters
    ssm_bias: bool = False  # the projections of Mamba-2 have biases
    ssm_conv_bias: bool = True  # the convolution of Mamba-2 has a bias
    dt_min: float = 1e-3  # least step size
    d_expert: int | None = None  # width of one expert; None: a quarter of d_ff
    n_experts: int = 8  # experts of each layer "experts" that are chosen
    n_shared: int = 1  # experts of each layer "experts" that read every token
    top_k: int = 2  # experts chosen for each token
    expert_groups: int = 1  # groups of experts
    top_groups: int = 1  # groups from which the experts of a token are chosen
    group_best: int | None = None  # affinities in the score of a group; None: top_k / top_groups
    normalize: bool = True  # the weights of the chosen experts sum to routed_scale
    routed_scale: float = 1.0  # factor of the chosen experts
    balance_loss: float = 1e-4  # coefficient of the balance loss; 0 turns it off
    balance_bias: bool = True  # balance by a bias added when experts are chosen

    def __post_init__(self) -> None:
        super().__post_init__()
        pattern(self.pattern, self.n_layers, LAYERS)
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self, rotated=False)
        set_default(self, "d_ff", 4 * self.d_model)
        set_default(self, "d_ssm", 2 * self.d_model)
        require_positive(self, "d_ff", "d_ssm", "ssm_heads", "ssm_groups", "d_state", "d_conv")
        require_divides(self, "ssm_heads", "d_ssm")
        require_divides(self, "ssm_groups", "ssm_heads")
        require_between(self, "dt_min", 0, 1)
        set_default(self, "d_expert", max(1, (self.d_ff or 4) // 4))
        require_positive(self, "d_expert", "n_experts", "top_k", "expert_groups", "top_groups", "routed_scale")
        require_between(self, "n_shared", 0, float("inf"), below_high=True)
        require_between(self, "balance_loss", 0, float("inf"), below_high=True)
        set_default(self, "group_best", best_of_group(self.top_k, self.top_groups, sigmoid=True))
        require_experts(self, groups="expert_groups")


@register_model("nemotron_h")
class NemotronH(Decoder):
    """Layers of `x + inner(norm(x))`, of the kinds in the pattern."""

    config_class = NemotronHConfig

    def block(self, config: Any, layer: int) -> Residual:
        kind = pattern(config.pattern, config.n_layers, LAYERS)[layer]
        makers = (self.make_mamba, self.make_attention, self.make_mlp, self.make_experts)
        return Residual(self.make_norm(config), dict(zip(LAYERS, makers, strict=True))[kind](config))

    def make_mamba(self, config: Any) -> Mamba2:
        """Returns a layer of Mamba-2."""
        return Mamba2(
            config.d_model,
            d_inner=config.d_ssm,
            head_dim=config.d_ssm // config.ssm_heads,
            n_groups=config.ssm_groups,
            d_state=config.d_state,
            d_conv=config.d_conv,
            bias=config.ssm_bias,
            conv_bias=config.ssm_conv_bias,
            dt_min=config.dt_min,
            norm_eps=config.norm_eps,
            init_out=uniform_fan_in(1 / math.sqrt(config.n_layers)),
        )

    def make_attention(self, config: Any) -> Attention:
        """Returns a layer of attention without positions."""
        return Attention(config.d_model, config.n_heads, n_kv_heads=config.n_kv_heads, head_dim=config.head_dim)

    def make_mlp(self, config: Any) -> nn.Module:
        """Returns a feed-forward layer."""
        return MLP(config.d_model, config.d_ff, squared_relu, gated=False)

    def make_experts(self, config: Any) -> nn.Module:
        """Returns a layer of experts, without gates as the feed-forward layers."""
        return SharedExperts(
            config.d_model,
            config.d_expert,
            config.n_experts,
            config.top_k,
            squared_relu,
            gated=False,
            n_shared=config.n_shared,
            normalize=config.normalize,
            scale=config.routed_scale,
            n_groups=config.expert_groups,
            top_groups=config.top_groups,
            group_best=config.group_best,
            balance_loss=config.balance_loss,
            balance_bias=config.balance_bias,
        )
