"""Mamba (Gu & Dao 2023, arXiv 2312.00752): a state-space model whose transitions depend on the token.

A stack of identical blocks, each a projection, a short causal convolution, the selective scan, and a gate
(`lmzoo.layers.mamba`); there is no separate feed-forward layer. Distinctive: the step size delta, the input map B and
the output map C are computed from the token, so the model selects what its state keeps; the state has a fixed size.
Options: `negative_eigenvalues` (Grazzi et al. 2024, arXiv 2411.12537), which makes it able to track states such as
parity; `select_eps`, the norms of Falcon Mamba (Zuo et al. 2024, arXiv 2410.05355). Deviation: the convolution's filter
gets no weight decay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from lmzoo.configs import require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.init import uniform_fan_in
from lmzoo.layers.mamba import Mamba as MambaMixer
from lmzoo.layers.mamba import default_dt_rank
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.stack import Residual
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class MambaConfig(DecoderConfig):
    """Mamba's sizes, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 2}

    d_state: int = 16  # states per channel
    d_conv: int = 4  # length of the convolution's filters
    expand: int = 2  # inner width / d_model
    dt_rank: int | None = None  # rank of the step size's projection; None: d_model / 16, rounded up
    bias: bool = False  # the first and the last projection have biases
    conv_bias: bool = True  # the convolution has a bias
    negative_eigenvalues: bool = False  # decays are in [-1, 1] instead of [0, 1]
    select_eps: float | None = None  # added to the variance in norms of B, C and the step size's input; None: no norms
    tie_embeddings: bool = True  # the head uses the weights of the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "dt_rank", default_dt_rank(self.d_model))
        require_positive(self, "d_state", "d_conv", "expand", "dt_rank")
        if self.select_eps is not None:
            require_positive(self, "select_eps")


@register_model("mamba")
class Mamba(Decoder):
    """Blocks of `x + mixer(norm(x))`."""

    config_class = MambaConfig

    def block(self, config: Any, layer: int) -> Residual:
        eps = config.select_eps
        mixer = MambaMixer(
            config.d_model,
            d_state=config.d_state,
            d_conv=config.d_conv,
            expand=config.expand,
            dt_rank=config.dt_rank,
            bias=config.bias,
            conv_bias=config.conv_bias,
            negative_eigenvalues=config.negative_eigenvalues,
            select_norm=None if eps is None else partial(RMSNorm, eps=eps, weight=False),
            init_out=uniform_fan_in(1 / math.sqrt(config.n_layers)),
        )
        return Residual(self.make_norm(config), mixer)
