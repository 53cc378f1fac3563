"""Griffin (De et al. 2024, arXiv 2402.19427): gated linear recurrences mixed with local attention, two to one.

Every block is a mixer and a gated feed-forward layer with the tanh form of GELU. Distinctive: two of three mixers are
an RG-LRU between a convolution and a gate (`lmzoo.layers.rg_lru`), whose state is one number per channel; the third is
attention over a sliding window, so the decoding state does not grow. `pattern = "recurrent"` is the paper's Hawk.
As in RecurrentGemma (arXiv 2404.07839), embeddings are multiplied by sqrt(d_model) and tied to the head, half of each
attention head is rotated, norms store their weight as its difference from 1, and logits are capped. Deviations: the
gates have as many blocks as there are attention heads (paper: 16); the derivative of sqrt(1 - a²) is bounded by a small
number under the root, not by clipping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from lmzoo.configs import require_divides, require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.capped_head import CappedHead
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import UnitOffsetRMSNorm
from lmzoo.layers.pattern import pattern
from lmzoo.layers.rg_lru import RGLRU
from lmzoo.layers.stack import Residual, Stack
from lmzoo.model import Traits
from lmzoo.ops.gelu import gelu_tanh
from lmzoo.registry import register_model

MIXERS = ("recurrent", "attention")


@dataclass(frozen=True, kw_only=True)
class GriffinConfig(DecoderConfig):
    """Griffin's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"pattern": "recurrent"}, {"pattern": "attention recurrent"})

    pattern: str = "recurrent*2 attention"  # mixers from bottom to top, repeated up to n_layers
    n_layers: int = 6  # number of blocks
    n_heads: int = 4  # attention heads, and blocks of the recurrence's gates
    n_kv_heads: int = 1  # heads of keys and values
    d_rnn: int | None = None  # channels of the recurrence; None: d_model
    d_ff: int | None = None  # width of the feed-forward layers; None: 3 d_model
    d_conv: int = 4  # length of the convolution's filters
    window: int = 64  # tokens that the attention sees, the present one included
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    embed_scale: float | None = None  # factor of the embeddings; None: sqrt(d_model)
    logit_cap: float = 30.0  # logits lie between -logit_cap and logit_cap
    norm_eps: float = 1e-6  # added to the variance in a normalization
    tie_embeddings: bool = True  # the head uses the weights of the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_rnn", self.d_model)
        set_default(self, "d_ff", 3 * self.d_model)
        require_heads(self)
        require_positive(self, "d_rnn", "d_ff", "d_conv", "window", "rope_theta", "logit_cap")
        if self.embed_scale is not None:
            require_positive(self, "embed_scale")
        require_divides(self, "n_heads", "d_rnn")
        pattern(self.pattern, self.n_layers, MIXERS)


@register_model("griffin")
class Griffin(Decoder):
    """Blocks of an RG-LRU or local attention, then GeGLU."""

    config_class = GriffinConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.scale = float(config.embed_scale or math.sqrt(config.d_model))

    @property
    def traits(self) -> Traits:
        # With a tied head, the token itself gets a large logit at first: its embedding dominates the features.
        config: Any = self.config
        return replace(super().traits, uniform_at_start=not config.tie_embeddings)

    def make_embedding(self, config: Any) -> Embedding:
        return Embedding(config.vocab_size, config.d_model, init=normal(config.d_model**-0.5))

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        return self.tokens(idx_BT) * self.scale

    def block(self, config: Any, layer: int) -> Stack:
        d_model, n_heads, shrink = config.d_model, config.n_heads, math.sqrt(2 / config.n_layers)
        init, init_out = normal(d_model**-0.5), normal(shrink * d_model**-0.5)
        mixer: nn.Module
        if pattern(config.pattern, config.n_layers, MIXERS)[layer] == "recurrent":
            init_rnn = normal(shrink * config.d_rnn**-0.5)
            mixer = RGLRU(d_model, n_heads, d_rnn=config.d_rnn, d_conv=config.d_conv, init_out=init_rnn)
        else:
            rope = Rope(config.rope_theta, fraction=0.5)
            options = {"n_kv_heads": config.n_kv_heads, "window": config.window, "rope": rope}
            mixer = Attention(d_model, n_heads, out_bias=True, init=init, init_out=init_out, **options)
        init_down = normal(shrink * config.d_ff**-0.5)
        mlp = MLP(d_model, config.d_ff, gelu_tanh, bias=True, init=init, init_down=init_down)
        return Stack(Residual(self.make_norm(config), inner) for inner in (mixer, mlp))

    def make_norm(self, config: Any) -> UnitOffsetRMSNorm:
        return UnitOffsetRMSNorm(config.d_model, config.norm_eps)

    def make_head(self, config: Any) -> CappedHead:
        return CappedHead(super().make_head(config), config.logit_cap)
