"""PaTH (Yang et al. 2025, "PaTH Attention: Position Encoding via Accumulating Householder Transformations",
arXiv 2505.16381): a transformer whose positions depend on the text.

Blocks of PaTH attention (`lmzoo.layers.path_attention`) and SwiGLU. Distinctive: rotary positions rotate queries and
keys by angles that depend on their distance alone; here each token has a generalized Householder matrix, and the score
of a query and a key has the product of the matrices of the tokens between them. So what stands between two tokens
decides how they see each other, and attention can track a state, as DeltaNet can. Option: `forget_gate`, the gates of
FoX in addition (PaTH-FoX). Deviations: query, key and value share one projection; so do gate and up; the direction's
projection has a low rank with grouped queries, too; the convolution's filters get no weight decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require_heads, require_positive, set_default
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.path_attention import PathAttention
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class PaTHConfig(MixerConfig):
    """PaTH's sizes and options, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}

    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys, values and directions; None: as many as n_heads
    w_rank: int = 32  # rank of the projection to the directions
    d_conv: int = 3  # length of the filters of the directions' convolution
    forget_gate: bool = False  # scores also fade by forget gates

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self, rotated=False)
        require_positive(self, "w_rank", "d_conv")


@register_model("path_attention")
class PaTH(MixerModel):
    """Blocks of PaTH attention and SwiGLU."""

    config_class = PaTHConfig

    def make_mixer(self, config: Any, layer: int) -> PathAttention:
        return PathAttention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            w_rank=config.w_rank,
            d_conv=config.d_conv,
            forget_gate=config.forget_gate,
        )
