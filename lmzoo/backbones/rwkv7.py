"""RWKV-7 "Goose" (Peng et al. 2025, arXiv 2503.14456): a generalized delta rule whose parts depend on the token.

Blocks of time mix and channel mix (`lmzoo.layers.rwkv7`). Distinctive: every map reads a mixture of the token and the
one before it (token shift); each head keeps a matrix that maps keys to values, decays each key feature at a rate of
its own, and removes what is stored under one key while it writes under another; low-rank maps make decay, learning
rate and gate depend on the token; later layers mix their values with those of the first. A LayerNorm follows the
embedding. Deviations: the second factors of the low-rank maps and the head start from normal numbers instead of
orthogonal matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lmzoo.configs import require_divides, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.context import Context
from lmzoo.layers.init import uniform
from lmzoo.layers.linear import Embedding
from lmzoo.layers.norm import LayerNorm
from lmzoo.layers.rwkv7 import ChannelMix, Ranks, TimeMix
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class RWKV7Config(DecoderConfig):
    """RWKV-7's sizes, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 32, "d_ff": 8}

    head_dim: int = 32  # width of a head, each with a state of its own
    d_ff: int | None = None  # width of the channel mix; None: 4 d_model
    decay_rank: int = 16  # rank of the map to the decays
    rate_rank: int = 16  # rank of the map to the learning rates
    value_rank: int = 8  # rank of the map to the shares of the first layer's values
    gate_rank: int = 32  # rank of the map to the output gate

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", 4 * self.d_model)
        require_positive(self, "head_dim", "d_ff", "decay_rank", "rate_rank", "value_rank", "gate_rank")
        require_divides(self, "head_dim", "d_model")


@register_model("rwkv7")
class RWKV7(Decoder):
    """Blocks of time mix and channel mix, after a normalized embedding."""

    config_class = RWKV7Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.norm_0 = self.make_norm(config)

    def make_embedding(self, config: Any) -> Embedding:
        return Embedding(config.vocab_size, config.d_model, init=uniform(1e-4))

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        return self.norm_0(self.tokens(idx_BT))

    def block(self, config: Any, layer: int) -> Stack:
        depth = (layer, config.n_layers)
        ranks = Ranks(config.decay_rank, config.rate_rank, config.value_rank, config.gate_rank)
        time_mix = TimeMix(config.d_model, config.head_dim, ranks, depth)
        layers = (time_mix, ChannelMix(config.d_model, config.d_ff, depth))
        return Stack(Residual(self.make_norm(config), inner) for inner in layers)

    def make_norm(self, config: Any) -> LayerNorm:
        return LayerNorm(config.d_model, config.norm_eps)
