"""Engram (Cheng et al. 2026, arXiv 2601.07372): a transformer with a memory of n-grams that costs one look-up.

Llama's blocks; the blocks named "memory" in `pattern` first add what they find in `lmzoo.layers.engram`. Distinctive:
the last two and three tokens are hashed, and the rows of large tables at these hashes, gated by the hidden state, are
added to it. The tables hold most of the parameters, and a token reads a few rows of them, so knowledge about fixed
phrases costs no attention. Deviations: no compression of the vocabulary (the authors merge tokens such as "Apple" and
" apple" before hashing); one residual stream and a dense feed-forward layer instead of their four streams and experts;
one optimizer for all parameters (they train the tables with a larger learning rate).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lmzoo.configs import require, require_at_most, require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, MixerConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.engram import TOKENS, Engram
from lmzoo.layers.mlp import MLP
from lmzoo.layers.pattern import pattern
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model

KINDS = ("plain", "memory")


@dataclass(frozen=True, kw_only=True)
class EngramConfig(MixerConfig):
    """Engram's sizes and options, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "memory_dim": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"max_ngram": 2, "d_conv": 1}, {"max_ngram": 5, "table_size": 11})

    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    pattern: str = "plain memory"  # blocks without and with a memory, repeated up to n_layers
    max_ngram: int = 3  # tokens of the longest n-gram
    hash_heads: int = 4  # tables for each length of an n-gram
    table_size: int = 1000  # rows of a table, rounded up to a prime number
    memory_dim: int | None = None  # features of the rows of all tables together; None: d_model
    d_conv: int = 4  # length of the convolution's filters
    hash_seed: int = 0  # from which the hashes are made

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "n_kv_heads", self.n_heads)
        set_default(self, "memory_dim", self.d_model)
        require_heads(self)
        require_positive(self, "rope_theta", "max_ngram", "hash_heads", "table_size", "memory_dim", "d_conv")
        require_at_most(self, 1 << 24, "table_size")
        require_at_most(self, 64, "max_ngram", "hash_heads", "d_conv")
        require(self.max_ngram >= 2, f"max_ngram={self.max_ngram} must be at least 2")
        tables = (self.max_ngram - 1) * self.hash_heads
        require((self.memory_dim or 0) % tables == 0, f"memory_dim={self.memory_dim} must be a multiple of {tables}")
        pattern(self.pattern, self.n_layers, KINDS)


@register_model("engram")
class EngramModel(Decoder):
    """Blocks of attention and SwiGLU, some of which first read a memory of n-grams."""

    config_class = EngramConfig

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        ctx.carry[TOKENS] = idx_BT
        return super().embed(idx_BT, ctx)

    def block(self, config: Any, layer: int) -> Stack:
        rope = Rope(config.rope_theta)
        attention = Attention(config.d_model, config.n_heads, n_kv_heads=config.n_kv_heads, rope=rope)
        layers: tuple[nn.Module, ...] = (attention, MLP(config.d_model, config.d_ff))
        residuals = [Residual(self.make_norm(config), inner) for inner in layers]
        kinds = pattern(config.pattern, config.n_layers, KINDS)
        if kinds[layer] == "memory":
            residuals.insert(0, Residual(None, self.make_memory(config, kinds[:layer].count("memory"))))
        return Stack(residuals)

    def make_memory(self, config: Any, index: int) -> Engram:
        """Returns the memory number `index`."""
        return Engram(
            config.d_model,
            config.vocab_size,
            memory_dim=config.memory_dim,
            table_size=config.table_size,
            max_ngram=config.max_ngram,
            n_heads=config.hash_heads,
            d_conv=config.d_conv,
            index=index,
            seed=config.hash_seed,
            norm_eps=config.norm_eps,
        )
