"""S4D (Gu et al. 2022, arXiv 2206.11893, On the Parameterization and Initialization of Diagonal State Space Models).

Blocks of the mixer (`lmzoo.layers.s4d`) and SwiGLU. Distinctive: the ancestor of Mamba. Each channel is filtered by a
linear state-space model, a sum of damped oscillations; nothing in it depends on the token, so it is a convolution in
training and a recurrence with a fixed state in decoding. `mimo` makes it S5 (Smith et al. 2022, arXiv 2208.04933): one
state for the layer, which reads and writes all channels and is computed by a parallel scan. Deviations: all parameters
have the same learning rate; the authors train A and dt with a smaller one. S5 has logarithmic decay rates, as S4D.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmzoo.configs import require, require_positive
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.s4d import S4D as S4DMixer
from lmzoo.layers.s4d import S5 as S5Mixer
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class S4DConfig(MixerConfig):
    """S4D's sizes, in addition to `MixerConfig`."""

    d_state: int = 64  # real states of each channel, two for each complex one; with mimo of the layer
    mimo: bool = False  # one state for all channels: S5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "d_state")
        require(self.d_state % 2 == 0, f"d_state={self.d_state} must be even: states are complex")


@register_model("s4d")
class S4D(MixerModel):
    """Blocks of S4D or S5, and SwiGLU."""

    config_class = S4DConfig

    def make_mixer(self, config: Any, layer: int) -> S4DMixer | S5Mixer:
        return (S5Mixer if config.mimo else S4DMixer)(config.d_model, d_state=config.d_state)
