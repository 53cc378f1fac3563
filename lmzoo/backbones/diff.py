"""Diff Transformer (Ye et al. 2024, arXiv 2410.05258): attention as the difference of two softmax maps.

Blocks of differential attention (`lmzoo.layers.diff_attention`) and SwiGLU, with rotary positions. Distinctive: each
head has two sets of queries and keys; the second softmax map, times a learned lambda, is subtracted from the first.
This cancels the attention that both give to irrelevant tokens, as a differential amplifier cancels noise. Lambda starts
at 0.2 in the first layer and approaches 0.8 in deep ones. Deviations: the norm of a head has no weight, as in
transformers' DiffLlama (the projection after it can express one); rotary pairs are the halves of a head and not
neighbors; query, key and value share one projection; so do gate and up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require, require_heads, require_positive, set_default
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.context import Rope
from lmzoo.layers.diff_attention import DiffAttention
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class DiffConfig(MixerConfig):
    """The Diff Transformer's sizes and options, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"rope_scaling": "yarn factor=2 original=8"},)

    n_heads: int = 2  # heads, each with two maps of width d_model / (2 n_heads)
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    rope_scaling: str = "none"  # for longer texts: "linear factor=4" (lmzoo.layers.rope_scaling)

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self, rotated=False)
        require_positive(self, "rope_theta")
        width = self.d_model // self.n_heads
        message = f"n_heads={self.n_heads} gives heads of width {width}, which must be a multiple of 4"
        require(width % 4 == 0, f"{message}: two maps that are rotated")
        require_rope_scaling(self, width // 2)


def first_lambda(layer: int) -> float:
    """Returns lambda_init of the layer at depth `layer`, counted from zero."""
    return 0.8 - 0.6 * math.exp(-0.3 * layer)


@register_model("diff")
class Diff(MixerModel):
    """Blocks of differential attention and SwiGLU."""

    config_class = DiffConfig

    def make_mixer(self, config: Any, layer: int) -> DiffAttention:
        return DiffAttention(
            config.d_model,
            config.n_heads,
            first_lambda(layer),
            n_kv_heads=config.n_kv_heads,
            rope=Rope(config.rope_theta, scaling=parse_rope_scaling(config.rope_scaling)),
            norm_eps=config.norm_eps,
        )
