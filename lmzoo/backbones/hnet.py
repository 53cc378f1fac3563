"""H-Net (Hwang et al. 2025, arXiv 2507.07955): "Dynamic Chunking for End-to-End Hierarchical Sequence Modeling".

Blocks of Mamba-2 on the tokens, in the middle of which a larger main network runs on learned chunks of them
(`lmzoo.layers.dynamic_chunks`). Distinctive: meant for bytes; where a chunk begins is decided by the similarity of
adjacent tokens and learned with the rest, in place of a tokenizer. Most of the parameters run once per chunk.
Deviations: the main network has Mamba-2 and SwiGLU where the paper has attention, because its state must have a fixed
size: rows of a batch have different numbers of chunks; it is as wide as the outer blocks; one level of chunks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from lmzoo.configs import require, require_between, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.dynamic_chunks import DynamicChunks
from lmzoo.layers.mamba2 import Mamba2
from lmzoo.layers.mlp import MLP, swiglu_width
from lmzoo.layers.stack import Residual, Stack
from lmzoo.model import Traits
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class HNetConfig(DecoderConfig):
    """H-Net's sizes, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}

    n_layers: int = 3  # blocks on the tokens; the one in the middle holds the main network
    n_main: int = 4  # blocks of the main network, on the chunks
    d_ff: int | None = None  # width of the main network's feed-forward layers; None: 8/3 d_model, rounded up
    chunk_length: float = 4.0  # tokens per chunk that the ratio loss aims at
    ratio_loss: float = 0.03  # coefficient of that loss
    d_state: int = 64  # states per channel of Mamba-2
    head_dim: int = 16  # channels of a head of Mamba-2, which share a decay
    d_conv: int = 4  # length of the convolutions' filters

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", swiglu_width(self.d_model))
        require_positive(self, "n_main", "d_ff", "d_state", "head_dim", "d_conv")
        require(self.chunk_length > 1, f"chunk_length={self.chunk_length} must be more than 1")
        require_between(self, "ratio_loss", 0, float("inf"), below_high=True)
        inner = 2 * self.d_model
        require(inner % self.head_dim == 0, f"head_dim={self.head_dim} must divide 2 * d_model = {inner}")


@register_model("hnet")
class HNet(Decoder):
    """Blocks of Mamba-2 around a main network that runs on chunks."""

    config_class = HNetConfig

    def block(self, config: Any, layer: int) -> nn.Module:
        if layer != config.n_layers // 2:
            return self.mixer(config)
        blocks = [part for _ in range(config.n_main) for part in (self.mixer(config), self.feed_forward(config))]
        sizes = {"chunk_length": config.chunk_length, "ratio_loss": config.ratio_loss}
        main = Stack([*blocks, self.make_norm(config)])
        return Stack([DynamicChunks(config.d_model, self.make_norm(config), main, **sizes)])

    def mixer(self, config: Any) -> Residual:
        """Returns a residual branch of Mamba-2."""
        sizes = {"d_state": config.d_state, "head_dim": config.head_dim, "d_conv": config.d_conv}
        return Residual(self.make_norm(config), Mamba2(config.d_model, **sizes, norm_eps=config.norm_eps))

    def feed_forward(self, config: Any) -> Residual:
        """Returns a residual branch of SwiGLU."""
        return Residual(self.make_norm(config), MLP(config.d_model, config.d_ff))

    @property
    def traits(self) -> Traits:
        return replace(super().traits, data_dependent_shapes=True)
