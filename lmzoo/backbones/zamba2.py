"""Zamba 2 (Zyphra 2024, arXiv 2411.15242): Mamba-2 layers, and a few shared transformer blocks that feed some of them.

Distinctive: one or two blocks of attention and feed-forward layer are used at many depths, so their weights cost little
(`lmzoo.layers.shared_block`). They read the features beside the embedded tokens, and each depth adapts them by low-rank
maps of its own. What such a block returns is added to the input of the next Mamba-2 layer alone, not to the residual
stream. Scores are scaled for half of the width of a head, since half of the input are the embedded tokens. Initial
values: N(0, 0.02²) for all matrices but Mamba-2's, which are those of its authors; low-rank maps start at zero.
Deviations: query, key and value share one projection; filters get no weight decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lmzoo.configs import require, require_between, require_divides, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.mamba2 import Mamba2
from lmzoo.layers.pattern import pattern
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling
from lmzoo.layers.shared_attention import EMBEDDED
from lmzoo.layers.shared_block import SharedBlock
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model

LAYERS = ("mamba2", "shared")


@dataclass(frozen=True, kw_only=True)
class Zamba2Config(DecoderConfig):
    """The pattern and the sizes of its layers, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"pattern": "shared", "n_shared": 2, "ssm_groups": 2, "n_kv_heads": 2},
        {"pattern": "mamba2 shared", "adapts_attention": True, "rotates": True, "rope_scaling": "linear factor=2"},
    )

    pattern: str = "mamba2*2 shared"  # layers from bottom to top, repeated; "shared": a shared block feeds the layer
    n_heads: int = 4  # attention heads, each 2 d_model / n_heads wide
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    d_ff: int | None = None  # width of the feed-forward layer of a shared block; None: 4 d_model
    n_shared: int = 1  # shared blocks, used in turn
    adapter_rank: int = 8  # rank of the maps by which each depth adapts a shared block
    adapts_attention: bool = False  # also query, key and value are adapted
    rotates: bool = False  # attention has rotary positions
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    rope_scaling: str = "none"  # for longer texts: "linear factor=4" (lmzoo.layers.rope_scaling)
    ssm_heads: int = 8  # heads of Mamba-2
    ssm_groups: int = 1  # groups of heads of Mamba-2 that share input and output maps
    d_state: int = 16  # states per channel
    d_conv: int = 4  # length of the convolution's filters
    expand: int = 2  # inner width of Mamba-2 / d_model
    dt_min: float = 1e-3  # least step size
    tie_embeddings: bool = True  # the head uses the weights of the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        pattern(self.pattern, self.n_layers, LAYERS)
        set_default(self, "n_kv_heads", self.n_heads)
        set_default(self, "d_ff", 4 * self.d_model)
        require_positive(self, "n_heads", "n_kv_heads", "d_ff", "n_shared", "adapter_rank", "rope_theta")
        require_positive(self, "ssm_heads", "ssm_groups", "d_state", "d_conv", "expand")
        require_divides(self, "n_kv_heads", "n_heads")
        width = 2 * self.d_model
        require(width % self.n_heads == 0, f"n_heads={self.n_heads} must divide 2 d_model = {width}")
        even = not self.rotates or width // self.n_heads % 2 == 0
        require(even, f"n_heads={self.n_heads} gives heads of width {width // self.n_heads}, which must be even")
        alike = not self.adapts_attention or self.n_kv_heads == self.n_heads
        require(alike, f"n_kv_heads={self.n_kv_heads} must be n_heads={self.n_heads}, since the attention is adapted")
        inner = self.expand * self.d_model
        require(inner % self.ssm_heads == 0, f"ssm_heads={self.ssm_heads} must divide expand * d_model = {inner}")
        require_divides(self, "ssm_groups", "ssm_heads")
        require_between(self, "dt_min", 0, 1)
        require_rope_scaling(self, width // self.n_heads)


@register_model("zamba2")
class Zamba2(Decoder):
    """Blocks of Mamba-2, of which some also read a shared transformer block."""

    config_class = Zamba2Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        blocks = [module for module in self.modules() if isinstance(module, SharedBlock)]
        for use, block in enumerate(blocks[config.n_shared :]):
            block.share(blocks[use % config.n_shared])

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        ctx.carry[EMBEDDED] = super().embed(idx_BT, ctx)
        return ctx.carry[EMBEDDED]

    def block(self, config: Any, layer: int) -> Residual:
        norm, mamba = self.make_norm(config), self.make_mamba(config)
        if pattern(config.pattern, config.n_layers, LAYERS)[layer] == "mamba2":
            return Residual(norm, mamba)
        return Residual(None, Stack([Residual(None, self.make_shared(config)), norm, mamba]))

    def make_shared(self, config: Any) -> SharedBlock:
        """Returns the shared block of one depth."""
        return SharedBlock(
            config.d_model,
            config.n_heads,
            config.d_ff,
            adapter_rank=config.adapter_rank,
            adapts_attention=config.adapts_attention,
            n_kv_heads=config.n_kv_heads,
            rope=Rope(config.rope_theta, scaling=parse_rope_scaling(config.rope_scaling)) if config.rotates else None,
            norm_eps=config.norm_eps,
        )

    def make_mamba(self, config: Any) -> Mamba2:
        """Returns Mamba-2 of one block; the norm of its output has the epsilon 1e-5."""
        return Mamba2(
            config.d_model,
            head_dim=config.expand * config.d_model // config.ssm_heads,
            n_groups=config.ssm_groups,
            d_state=config.d_state,
            d_conv=config.d_conv,
            expand=config.expand,
            dt_min=config.dt_min,
        )
