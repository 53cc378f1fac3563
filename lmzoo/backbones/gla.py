"""GLA, gated linear attention (Yang et al. 2024, arXiv 2312.06635): linear attention that chooses what it forgets.

Blocks of gated linear attention (`lmzoo.layers.gla`) and SwiGLU. Distinctive: the memory of each head is a matrix of
keys by values, and each token computes for every key channel the share that is kept, through a projection of low rank;
so forgetting depends on the content, and training is still matrix products in chunks. There are no positions: order is
known from the decays. Deviation: the heads' outputs are normalized by RMSNorm, as in the authors' code, not by
LayerNorm; queries, keys and values share one projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require, require_positive
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.gla import GLA as GLAMixer
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class GLAConfig(MixerConfig):
    """GLA's sizes, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}

    n_heads: int = 4  # heads, each with a memory of its own
    gate_rank: int = 16  # rank of the projection that computes the decays
    temperature: float = 16.0  # a decay is sigmoid(z)^(1 / temperature): a larger one forgets more slowly

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "n_heads", "gate_rank", "temperature")
        message = f"n_heads={self.n_heads} must divide d_model / 2 = {self.d_model / 2:g}, the width of the keys"
        require(self.d_model % (2 * self.n_heads) == 0, message)


@register_model("gla")
class GLA(MixerModel):
    """Blocks of gated linear attention and SwiGLU."""

    config_class = GLAConfig

    def make_mixer(self, config: Any, layer: int) -> GLAMixer:
        return GLAMixer(
            config.d_model,
            config.n_heads,
            gate_rank=config.gate_rank,
            temperature=config.temperature,
            norm_eps=config.norm_eps,
        )
