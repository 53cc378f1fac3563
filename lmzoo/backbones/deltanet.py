"""DeltaNet (Yang et al. 2024, arXiv 2406.06484): linear attention that replaces old values instead of only adding.

Blocks of the delta rule (`lmzoo.layers.delta_rule`) and SwiGLU. Distinctive: each head keeps a matrix that maps keys to
values; a token replaces the value stored under its key, so old associations can be overwritten in a state of fixed
size. Training works in chunks by the WY form (`lmzoo.ops.delta_rule`). Option: `negative_eigenvalues` (Grazzi et al.
2024, arXiv 2411.12537), which makes it able to track states such as parity. Deviations: queries, keys and values share
one projection and one convolution; the convolution's filters get no weight decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require_heads, require_positive
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.delta_rule import DeltaRule
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class DeltaNetConfig(MixerConfig):
    """DeltaNet's sizes and options, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}

    n_heads: int = 4  # heads, each with a state of its own
    d_conv: int = 4  # length of the convolution's filters
    negative_eigenvalues: bool = False  # beta, the strength of a write, is up to 2 instead of 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self, rotated=False)
        require_positive(self, "d_conv")


@register_model("deltanet")
class DeltaNet(MixerModel):
    """Blocks of the delta rule and SwiGLU."""

    config_class = DeltaNetConfig

    def make_mixer(self, config: Any, layer: int) -> DeltaRule:
        return DeltaRule(
            config.d_model,
            config.n_heads,
            d_conv=config.d_conv,
            negative_eigenvalues=config.negative_eigenvalues,
            norm_eps=config.norm_eps,
        )
