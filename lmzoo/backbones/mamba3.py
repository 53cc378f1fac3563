"""Mamba-3 (Lahoti et al. 2026, arXiv 2603.15569, Improved Sequence Modeling using State Space Principles).

Blocks of the mixer (`lmzoo.layers.mamba3`) and SwiGLU. Distinctive, compared with Mamba-2: the input of a step is
integrated by a trapezoidal rule, a mixture of both ends of the step that the token chooses; the state is complex, so it
can rotate and not only decay, which counting needs; decay rates depend on the token; input and output maps are
normalized and have biases. There is no short convolution: the trapezoidal rule reads two tokens. Deviations: one input
and one output for each head (the paper's variant with several, MIMO, is left out), and one group of maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require, require_between, require_inner_heads, require_positive
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.init import uniform_fan_in
from lmzoo.layers.mamba3 import Mamba3 as Mamba3Mixer
from lmzoo.layers.mamba3 import rotating_pairs
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class Mamba3Config(MixerConfig):
    """Mamba-3's sizes, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 16, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"rope_fraction": 1.0},)

    d_state: int = 64  # states per channel
    head_dim: int = 32  # channels of a head, which share decay and rotations
    expand: int = 2  # inner width / d_model
    rope_fraction: float = 0.5  # share of a state's features that rotate

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "d_state", "head_dim", "expand")
        require_inner_heads(self, "head_dim")
        require_between(self, "rope_fraction", 0, 1)
        pairs = rotating_pairs(self.d_state, self.rope_fraction)
        require(pairs > 0, f"rope_fraction={self.rope_fraction} of d_state={self.d_state} must be at least 2 features")


@register_model("mamba3")
class Mamba3(MixerModel):
    """Blocks of Mamba-3's mixer and SwiGLU."""

    config_class = Mamba3Config

    def make_mixer(self, config: Any, layer: int) -> Mamba3Mixer:
        return Mamba3Mixer(
            config.d_model,
            d_state=config.d_state,
            head_dim=config.head_dim,
            expand=config.expand,
            rope_fraction=config.rope_fraction,
            norm_eps=config.norm_eps,
            init_out=uniform_fan_in(1 / math.sqrt(2 * config.n_layers)),
        )
