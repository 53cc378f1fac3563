"""KDA, Kimi delta attention (Kimi Team 2025, arXiv 2510.26692): Gated DeltaNet with a decay for each key channel.

Blocks of Kimi delta attention (`lmzoo.layers.kda`) and SwiGLU. Distinctive: where Gated DeltaNet lets a whole head
forget at once, each channel of the key has a decay of its own, as in GLA; so a head can keep some things for long and
others briefly, which also tells it how long ago something was. There are no other positions. Decays and output gates
come from projections of low rank. Option: `negative_eigenvalues` (Grazzi et al. 2024, arXiv 2411.12537), which Kimi
Linear does not use. Deviations: Kimi Linear is a hybrid, with full attention in every fourth layer and
experts; this family is its linear layer alone (`hybrid` makes patterns). Queries, keys and values share one projection
and one convolution; the convolution's filters get no weight decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require, require_positive, set_default
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.kda import KDA as KDAMixer
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class KDAConfig(MixerConfig):
    """KDA's sizes, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "head_dim": 2, "d_ff": 8}

    n_heads: int = 4  # heads, each with a state of its own
    head_dim: int | None = None  # width of a key and of a value; None: d_model / n_heads
    d_conv: int = 4  # length of the convolution's filters
    negative_eigenvalues: bool = False  # beta, the strength of a write, is up to 2 instead of 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "n_heads", "d_conv")
        if self.head_dim is None:
            message = f"n_heads={self.n_heads} must divide d_model={self.d_model}, or head_dim must be given"
            require(self.d_model % self.n_heads == 0, message)
        set_default(self, "head_dim", self.d_model // self.n_heads)
        require_positive(self, "head_dim")


@register_model("kda")
class KDA(MixerModel):
    """Blocks of Kimi delta attention and SwiGLU."""

    config_class = KDAConfig

    def make_mixer(self, config: Any, layer: int) -> KDAMixer:
        return KDAMixer(
            config.d_model,
            config.n_heads,
            config.head_dim,
            d_conv=config.d_conv,
            negative_eigenvalues=config.negative_eigenvalues,
            norm_eps=config.norm_eps,
        )
