"""Nemotron-H (NVIDIA 2025, arXiv 2504.03624): Mamba-2, attention and feed-forward layers, one after another.

Distinctive: a layer is one of the three, each after a norm of its own, so their numbers are chosen freely: about half
are feed-forward layers and few are attention (4 of 52 in Nemotron-H-8B), without positions, which the recurrence gives.
Feed-forward layers are plain, with a squared ReLU (So et al. 2021, arXiv 2109.08668). Mamba-2 has several groups of
heads and a least step size. Initial values: N(0, 0.02²) for all matrices but Mamba-2's, which are those of its authors,
with its output scaled by depth. Deviations: query, key and value share one projection; filters get no weight decay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lmzoo.configs import require_between, require_divides, require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.init import uniform_fan_in
from lmzoo.layers.mamba2 import Mamba2
from lmzoo.layers.mlp import MLP
from lmzoo.layers.pattern import pattern
from lmzoo.layers.stack import Residual
from lmzoo.registry import register_model

LAYERS = ("mamba2", "attention", "mlp")


@dataclass(frozen=True, kw_only=True)
class NemotronHConfig(DecoderConfig):
    """The pattern and the sizes of its layers, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8, "d_ssm": 16}
    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"head_dim": 5, "ssm_groups": 2},)

    pattern: str = "mamba2 mlp mamba2 attention mlp"  # layers from bottom to top, repeated up to n_layers
    n_layers: int = 5  # number of layers of all kinds
    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    head_dim: int | None = None  # width of a head of attention; None: d_model / n_heads
    d_ff: int | None = None  # width of the feed-forward layers; None: 4 d_model
    d_ssm: int | None = None  # inner width of Mamba-2; None: 2 d_model
    ssm_heads: int = 8  # heads of Mamba-2
    ssm_groups: int = 1  # groups of these heads that share input and output maps
    d_state: int = 16  # states per channel
    d_conv: int = 4  # length of the convolution's filters
    dt_min: float = 1e-3  # least step size

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


@register_model("nemotron_h")
class NemotronH(Decoder):
    """Layers of `x + inner(norm(x))`, of the kinds in the pattern."""

    config_class = NemotronHConfig

    def block(self, config: Any, layer: int) -> Residual:
        kind = pattern(config.pattern, config.n_layers, LAYERS)[layer]
        make = {"mamba2": self.make_mamba, "attention": self.make_attention, "mlp": self.make_mlp}
        return Residual(self.make_norm(config), make[kind](config))

    def make_mamba(self, config: Any) -> Mamba2:
        """Returns a layer of Mamba-2."""
        return Mamba2(
            config.d_model,
            d_inner=config.d_ssm,
            head_dim=config.d_ssm // config.ssm_heads,
            n_groups=config.ssm_groups,
            d_state=config.d_state,
            d_conv=config.d_conv,
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


def squared_relu(x: Tensor) -> Tensor:
    """Returns `max(x, 0)²`."""
    return x.relu().square()
