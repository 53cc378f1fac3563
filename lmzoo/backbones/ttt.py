"""TTT-Linear (Sun et al. 2024, arXiv 2407.04620): "Learning to (Learn at Test Time)".

Blocks of test-time training (`lmzoo.layers.ttt`) and SwiGLU. Distinctive: the state is the weight of a small model, and
reading a token is a step of gradient descent on a loss that compares the model's output for the token's key with its
value. What the text repeats is learned into the weights; the outer training learns the task, the first weights and the
learning rates. Option: `titans` adds momentum and forgetting to the inner optimizer (Titans, Behrouz et al. 2025,
arXiv 2501.00663). As in the paper's Mamba backbone, queries and keys are convolutions of one projection, and the output
has a gate. Deviation: a step is divided by the length of the mini-batch; in the authors' code by the position in it,
with a learned correction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require_heads, require_positive
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.ttt import TTT as TTTMixer
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class TTTConfig(MixerConfig):
    """TTT-Linear's sizes and options, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}

    n_heads: int = 4  # inner models, each of the width d_model / n_heads
    mini_batch: int = 16  # tokens whose gradients are taken at the same weights
    base_rate: float = 1.0  # an inner learning rate is at most this / (mini_batch times the width of a head)
    d_conv: int = 4  # length of the convolutions' filters
    rope_theta: float = 10000.0  # base of the rotary wavelengths, for positions in the mini-batch
    titans: bool = False  # the inner optimizer has momentum and forgets

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self)
        require_positive(self, "mini_batch", "base_rate", "d_conv", "rope_theta")


@register_model("ttt")
class TTT(MixerModel):
    """Blocks of test-time training and SwiGLU."""

    config_class = TTTConfig

    def make_mixer(self, config: Any, layer: int) -> TTTMixer:
        return TTTMixer(
            config.d_model,
            config.n_heads,
            mini_batch=config.mini_batch,
            base_rate=config.base_rate,
            d_conv=config.d_conv,
            rope_theta=config.rope_theta,
            titans=config.titans,
            norm_eps=config.norm_eps,
        )
