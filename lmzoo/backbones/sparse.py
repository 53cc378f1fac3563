"""Sparse attention: DeepSeek-V3.2's indexer (DeepSeek-AI 2025, arXiv 2512.02556), and Native Sparse Attention (Yuan et
al. 2025, arXiv 2502.11089, "NSA").

Blocks of sparse attention and SwiGLU. Distinctive: the cache holds all tokens, but a query reads a fixed number of
them, which it chooses by their content. "dsa" (`lmzoo.layers.dsa`) is latent attention to the `top_keys` keys with the
highest scores of a small indexer, which an auxiliary loss trains. "nsa" (`lmzoo.layers.nsa`) reads a compressed key per
block, all keys of a few chosen blocks, and a window; it is trained end to end. A `pattern` may mix both.

Deviations: DeepSeek-V3.2 has experts, and adds sparse attention to a model trained without it, after the indexer has
been trained alone; here both learn from the first step on. NSA's blocks for compression overlap in the paper, here both
kinds are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require, require_heads, require_positive, set_default
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.context import Rope
from lmzoo.layers.dsa import DSA
from lmzoo.layers.nsa import NSA
from lmzoo.layers.pattern import pattern
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class SparseConfig(MixerConfig):
    """The mixers and their sizes, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"pattern": "dsa nsa"},)

    pattern: str = "dsa"  # mixers, "dsa" or "nsa", from bottom to top, repeated up to n_layers
    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # nsa: heads of keys and values; None: as many as n_heads
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    top_keys: int = 64  # dsa: keys that a query reads
    index_heads: int = 4  # dsa: heads of the indexer
    index_dim: int = 32  # dsa: their width
    q_rank: int = 64  # dsa: features through which queries are projected
    kv_rank: int = 64  # dsa: cached features for the keys and values of all heads
    nope_dim: int = 32  # dsa: features of a query and key without position
    rope_dim: int = 16  # dsa: rotated features of a query and key, and of the indexer's
    v_dim: int = 32  # dsa: features of a value
    block_length: int = 16  # nsa: tokens of a block
    top_blocks: int = 4  # nsa: blocks that a query chooses, in addition to the first and the last two
    window: int = 64  # nsa: tokens that the third attention sees, the present one included

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self)
        require_positive(self, "rope_theta", "top_keys", "index_heads", "q_rank", "kv_rank", "nope_dim", "rope_dim")
        require_positive(self, "v_dim", "block_length", "top_blocks", "window")
        require(self.rope_dim % 2 == 0, f"rope_dim={self.rope_dim} must be even to be rotated")
        fits = self.index_dim >= self.rope_dim
        require(fits, f"index_dim={self.index_dim} must be at least rope_dim={self.rope_dim}")
        self.words()

    def words(self) -> list[str]:
        """Returns the mixer of each layer. Raises `ConfigError` for an unknown one."""
        return pattern(self.pattern, self.n_layers, ("dsa", "nsa"))


@register_model("sparse")
class Sparse(MixerModel):
    """Blocks of sparse attention and SwiGLU."""

    config_class = SparseConfig

    def make_mixer(self, config: Any, layer: int) -> DSA | NSA:
        rope = Rope(config.rope_theta)
        if config.words()[layer] == "dsa":
            names = ("q_rank", "kv_rank", "nope_dim", "rope_dim", "v_dim", "top_keys", "index_heads", "index_dim")
            sizes = {name: getattr(config, name) for name in names}
            return DSA(config.d_model, config.n_heads, rope=rope, norm_eps=config.norm_eps, **sizes)
        return NSA(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            block_length=config.block_length,
            top_blocks=config.top_blocks,
            window=config.window,
            rope=rope,
        )
