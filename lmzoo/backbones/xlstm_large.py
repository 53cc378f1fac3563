"""xLSTM 7B (Beck et al. 2025, arXiv 2503.13427): the mLSTM in the frame of Llama, made for fast inference.

Distinctive: where the mLSTM of xLSTM works between wide projections, after a convolution, here it works on the features
themselves and is followed by SwiGLU (`lmzoo.layers.capped_mlstm`). So most FLOPs are in large matrix products. Queries
and keys have half the width of the values, which halves the memory; norms are RMS norms; gates and logits are bounded,
and input gates start almost closed, which keeps training stable. Initial values as in the authors' code, but for the
gates of outputs and of feed-forward layers, which do not start at zero. Deviation: gate and up share one projection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from lmzoo.configs import require_divides, require_heads, require_positive, set_default
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.capped_head import CappedHead
from lmzoo.layers.capped_mlstm import CappedMLSTM
from lmzoo.layers.head import make_head
from lmzoo.layers.init import normal, small_init
from lmzoo.layers.linear import Embedding
from lmzoo.layers.mlp import MLP
from lmzoo.layers.stack import Residual, Stack
from lmzoo.model import Traits
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class XLSTMLargeConfig(MixerConfig):
    """The mLSTM's sizes and caps, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "qk_dim": 8, "v_dim": 8, "d_ff": 8}

    n_heads: int = 4  # heads, each with a memory of its own
    qk_dim: int | None = None  # width of the queries and of the keys of all heads; None: half of d_model
    v_dim: int | None = None  # width of the values of all heads; None: d_model
    gate_cap: float = 15.0  # gates stay within ±gate_cap before their functions
    logit_cap: float = 30.0  # logits stay within ±logit_cap
    norm_eps: float = 1e-6  # added to the variance in a normalization

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self, rotated=False)
        set_default(self, "qk_dim", self.d_model // 2)
        set_default(self, "v_dim", self.d_model)
        require_positive(self, "qk_dim", "v_dim", "gate_cap", "logit_cap")
        require_divides(self, "n_heads", "qk_dim")
        require_divides(self, "n_heads", "v_dim")


@register_model("xlstm_large")
class XLSTMLarge(MixerModel):
    """Blocks of mLSTM and SwiGLU."""

    config_class = XLSTMLargeConfig

    @property
    def traits(self) -> Traits:
        # The features have variance 1, so small_init gives logits of variance 2/5, and a loss 0.2 nats above ln V.
        return replace(super().traits, uniform_at_start=False)

    def make_embedding(self, config: Any) -> Embedding:
        return Embedding(config.vocab_size, config.d_model, init=small_init(config.d_model))

    def block(self, config: Any, layer: int) -> Stack:
        init_down = normal(2 / (config.n_layers * math.sqrt(config.d_ff)))
        mlp = MLP(config.d_model, config.d_ff, init=small_init(config.d_model), init_down=init_down)
        return Stack(Residual(self.make_norm(config), inner) for inner in (self.make_mixer(config, layer), mlp))

    def make_mixer(self, config: Any, layer: int) -> CappedMLSTM:
        return CappedMLSTM(
            config.d_model,
            config.n_heads,
            qk_dim=config.qk_dim,
            v_dim=config.v_dim,
            cap=config.gate_cap,
            norm_eps=config.norm_eps,
            init_out=normal(2 / (config.n_layers * math.sqrt(config.d_model))),
        )

    def make_head(self, config: Any) -> nn.Module:
        init = small_init(config.d_model)
        return CappedHead(make_head(self.tokens, tied=config.tie_embeddings, init=init), config.logit_cap)
