"""Log-linear attention (Guo et al. 2025, arXiv 2506.04761), applied to Mamba-2: a state that grows with log T.

A stack of identical blocks of one mixer (`lmzoo.layers.log_linear`), as in Mamba-2. Distinctive: between the one memory
of linear attention and the cache of attention, which has an entry per token, this has a memory for each binary digit of
the number of tokens: blocks of 1, 2, 4, ... tokens, the nearest the smallest, as in a Fenwick tree. A token reads each
block with a weight that it computes, so the recent past is seen in more detail. Deviations: the authors also make a
log-linear Gated DeltaNet; levels beyond the last of `n_levels` share its weight, so that a text can be of any length;
the convolution's filter gets no weight decay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require_inner_heads, require_positive
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.init import uniform_fan_in
from lmzoo.layers.log_linear import LogLinearMamba2
from lmzoo.layers.stack import Residual
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class LogLinearConfig(DecoderConfig):
    """The sizes of log-linear Mamba-2, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 16}
    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"n_groups": 2}, {"n_levels": 3})

    n_levels: int = 15  # weights of a token for blocks of 0, 1, 2, 4, ... earlier tokens; later ones share the last
    d_state: int = 64  # states per channel
    head_dim: int = 32  # channels of a head, which share a decay and the weights
    n_groups: int = 1  # groups of heads that share input and output maps
    d_conv: int = 4  # length of the convolution's filters
    expand: int = 2  # inner width / d_model
    tie_embeddings: bool = True  # the head uses the weights of the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "n_levels", "d_state", "head_dim", "n_groups", "d_conv", "expand")
        require_inner_heads(self, "head_dim", "n_groups")


@register_model("log_linear")
class LogLinear(Decoder):
    """Blocks of `x + mixer(norm(x))`."""

    config_class = LogLinearConfig

    def block(self, config: Any, layer: int) -> Residual:
        mixer = LogLinearMamba2(
            config.d_model,
            n_levels=config.n_levels,
            d_state=config.d_state,
            head_dim=config.head_dim,
            n_groups=config.n_groups,
            d_conv=config.d_conv,
            expand=config.expand,
            norm_eps=config.norm_eps,
            init_out=uniform_fan_in(1 / math.sqrt(config.n_layers)),
        )
        return Residual(self.make_norm(config), mixer)
