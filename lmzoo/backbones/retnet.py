"""RetNet (Sun et al. 2023, arXiv 2307.08621): attention without softmax, with a fixed decay for each head.

Pre-norm blocks of retention (`lmzoo.layers.retention`) and a feed-forward layer with GELU. Distinctive: the same
layer is a sum over all earlier tokens, weighted by gamma^distance, and a recurrence with a matrix as state: training is
parallel, and decoding needs constant time and memory per token. Heads have different decays, from 1 - 1/32 upwards.
Values and gates are twice as wide as the model, the feed-forward layer as well, so a block has about the parameters of
a transformer's.

Deviations: rotary frequencies and pairs of features as in Llama; the paper's normalizations of the retention scores,
which the group norm cancels, are left out; no DeepNet scaling of the initial values; no biases in the feed-forward
layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F

from lmzoo.configs import require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.context import Rope
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import LayerNorm
from lmzoo.layers.retention import Retention
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class RetNetConfig(DecoderConfig):
    """RetNet's sizes, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}

    n_heads: int = 4  # heads, each with its own decay
    d_ff: int | None = None  # width of the feed-forward layers; None: 2 d_model
    rope_theta: float = 10000.0  # base of the rotary wavelengths

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", 2 * self.d_model)
        require_positive(self, "d_ff", "rope_theta")
        require_heads(self)


@register_model("retnet")
class RetNet(Decoder):
    """Blocks of retention and a feed-forward layer."""

    config_class = RetNetConfig

    def block(self, config: Any, layer: int) -> Stack:
        rope = Rope(config.rope_theta)
        retention = Retention(config.d_model, config.n_heads, rope=rope, norm_eps=config.norm_eps)
        layers = (retention, MLP(config.d_model, config.d_ff, F.gelu, gated=False))
        return Stack(Residual(self.make_norm(config), inner) for inner in layers)

    def make_norm(self, config: Any) -> LayerNorm:
        return LayerNorm(config.d_model, config.norm_eps)
