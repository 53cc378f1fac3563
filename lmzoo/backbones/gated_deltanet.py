"""Gated DeltaNet (Yang et al. 2024, arXiv 2412.06464): the delta rule of DeltaNet with the decay of Mamba-2.

Blocks of the gated delta rule (`lmzoo.layers.gated_delta`) and SwiGLU. Distinctive: the delta rule replaces the value
under one key exactly but can only do this key by key; a decay forgets everything at once but not selectively. Together
each token can do both. It is the linear layer of Qwen3-Next and OLMo Hybrid. Keys of all heads have 3/4 of the model's
width, values twice as many features. Option: `negative_eigenvalues` (Grazzi et al. 2024, arXiv 2411.12537).
Deviations: queries, keys and values share one projection and one convolution; the convolution's filters get no weight
decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require, require_positive, set_default
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.gated_delta import GatedDelta
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class GatedDeltaNetConfig(MixerConfig):
    """Gated DeltaNet's sizes and options, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "key_dim": 2, "value_dim": 4, "d_ff": 8}

    n_heads: int = 4  # heads, each with a state of its own
    key_dim: int | None = None  # width of a key; None: 3/4 of d_model / n_heads, rounded down
    value_dim: int | None = None  # width of a value; None: 2 key_dim
    d_conv: int = 4  # length of the convolution's filters
    negative_eigenvalues: bool = False  # beta, the strength of a write, is up to 2 instead of 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "n_heads", "d_conv")
        default = 3 * self.d_model // (4 * self.n_heads)
        message = f"n_heads={self.n_heads} is too many for d_model={self.d_model}: key_dim would be 0"
        require(self.key_dim is not None or default > 0, message)
        set_default(self, "value_dim", 2 * (self.key_dim or default))
        set_default(self, "key_dim", default)
        require_positive(self, "key_dim", "value_dim")


@register_model("gated_deltanet")
class GatedDeltaNet(MixerModel):
    """Blocks of the gated delta rule and SwiGLU."""

    config_class = GatedDeltaNetConfig

    def make_mixer(self, config: Any, layer: int) -> GatedDelta:
        return GatedDelta(
            config.d_model,
            config.n_heads,
            config.key_dim,
            config.value_dim,
            d_conv=config.d_conv,
            negative_eigenvalues=config.negative_eigenvalues,
            norm_eps=config.norm_eps,
        )
