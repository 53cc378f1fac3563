"""Mamba-2 (Dao & Gu 2024, arXiv 2405.21060): a state-space model with one decay per head, computed like attention.

A stack of identical blocks, each a projection, a short causal convolution, SSD, a gate and a norm
(`lmzoo.layers.mamba2`); there is no separate feed-forward layer. Distinctive: Mamba's decay for each channel and state
becomes one number per head, so the recurrence is linear attention with a decay and training consists of matrix
products; states can be larger at the same cost. Step size, input and output maps come from one projection of the
block's input. Deviation: the convolution's filter gets no weight decay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require_inner_heads, require_positive, require_step_sizes
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.init import uniform_fan_in
from lmzoo.layers.mamba2 import Mamba2 as Mamba2Mixer
from lmzoo.layers.stack import Residual
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class Mamba2Config(DecoderConfig):
    """Mamba-2's sizes, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 16}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"n_groups": 2},
        {"bias": True, "conv_bias": False, "dt_min": 0.02, "dt_max": 0.05},
    )

    d_state: int = 64  # states per channel
    head_dim: int = 32  # channels of a head, which share a decay
    n_groups: int = 1  # groups of heads that share input and output maps
    d_conv: int = 4  # length of the convolution's filters
    expand: int = 2  # inner width / d_model
    bias: bool = False  # the projections have biases
    conv_bias: bool = True  # the convolution has a bias
    dt_min: float = 0.0  # least step size
    dt_max: float | None = None  # greatest step size; None: no limit
    tie_embeddings: bool = True  # the head uses the weights of the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "d_state", "head_dim", "n_groups", "d_conv", "expand")
        require_inner_heads(self, "head_dim", "n_groups")
        require_step_sizes(self)


@register_model("mamba2")
class Mamba2(Decoder):
    """Blocks of `x + mixer(norm(x))`."""

    config_class = Mamba2Config

    def block(self, config: Any, layer: int) -> Residual:
        mixer = Mamba2Mixer(
            config.d_model,
            d_state=config.d_state,
            head_dim=config.head_dim,
            n_groups=config.n_groups,
            d_conv=config.d_conv,
            expand=config.expand,
            bias=config.bias,
            conv_bias=config.conv_bias,
            dt_min=config.dt_min,
            dt_max=config.dt_max,
            norm_eps=config.norm_eps,
            init_out=uniform_fan_in(1 / math.sqrt(config.n_layers)),
        )
        return Residual(self.make_norm(config), mixer)
