"""Hyena (Poli et al. 2023, arXiv 2302.10866, Hyena Hierarchy: Towards Larger Convolutional Language Models).

Blocks of the mixer (`lmzoo.layers.hyena`) and SwiGLU. Distinctive: no attention and no recurrence. Each channel is
convolved with a filter as long as the text, which a small network computes from the positions, so the number of
parameters does not depend on the length; elementwise gates between the convolutions make the whole depend on the
tokens. Positions are fractions of `context_length`, so filters end there and the model does not extrapolate.
Deviations: features of positions are fixed; one learning rate and weight decay for all matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require, require_positive
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.hyena import Hyena as HyenaMixer
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class HyenaConfig(MixerConfig):
    """Hyena's sizes, in addition to `MixerConfig`."""

    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"order": 4},)

    order: int = 2  # gates; one more than long convolutions
    d_conv: int = 3  # length of the short convolution's filters
    d_filter: int = 64  # width of the network that computes the long filters
    n_bands: int = 16  # frequencies of a position's features

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "order", "d_conv", "d_filter", "n_bands")
        require(self.order >= 2, f"order={self.order} must be 2 or more: one long convolution or more")


@register_model("hyena")
class Hyena(MixerModel):
    """Blocks of Hyena and SwiGLU."""

    config_class = HyenaConfig
    extrapolates = False

    def make_mixer(self, config: Any, layer: int) -> HyenaMixer:
        return HyenaMixer(
            config.d_model,
            config.context_length,
            order=config.order,
            d_conv=config.d_conv,
            d_filter=config.d_filter,
            n_bands=config.n_bands,
        )
