"""GPT-NeoX (Black et al. 2022, arXiv 2204.06745), and with other sizes Pythia (Biderman et al., arXiv 2304.01373).

A transformer with LayerNorm, biases and GELU (exact form). Distinctive: the attention and the feed-forward layer of a
block both read its input, and both results are added to it (`parallel_residual`); rotary positions rotate only the
first quarter of each head; embedding and head are not tied. Initial values as in the authors' configurations:
N(0, 2 / (5 d_model)) ("small_init", Nguyen & Salazar 2019, arXiv 1910.05895), and N(0, 4 / (n_layers² d_model)) for
the two projections into the residual stream ("wang_init", Wang & Komatsuzaki 2021). StarCoder 2 (Lozhkov et al. 2024,
arXiv 2402.19173) is a relative: in sequence, with grouped queries, a window, and all features rotated. Deviations: an
odd number of rotated features is rounded down; the fused projection has first all queries, then all keys, then all
values; no dropout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import nn

from lmzoo.configs import require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Rope
from lmzoo.layers.head import make_head
from lmzoo.layers.init import normal, small_init
from lmzoo.layers.linear import Embedding
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import LayerNorm
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling, require_rotary_fraction
from lmzoo.layers.stack import Parallel, Residual, Stack
from lmzoo.model import Traits
from lmzoo.ops.gelu import gelu_tanh
from lmzoo.registry import register_model

ACTIVATIONS = {"gelu": F.gelu, "gelu_tanh": gelu_tanh}


@dataclass(frozen=True, kw_only=True)
class GPTNeoXConfig(DecoderConfig):
    """GPT-NeoX's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"parallel_residual": False, "activation": "gelu_tanh", "window": 5, "n_kv_heads": 1, "bias": False},
        {"rope_scaling": "yarn factor=2 original=8"},
    )

    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    window: int | None = None  # tokens that each layer sees, the present one included; None: all
    d_ff: int | None = None  # width of the feed-forward layers; None: 4 d_model
    rotary_fraction: float = 0.25  # rotated share of a head's features: the first ones, rounded down to an even number
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    rope_scaling: str = "none"  # for longer texts: "linear factor=4" (lmzoo.layers.rope_scaling)
    activation: Literal["gelu", "gelu_tanh"] = "gelu"  # of the feed-forward layers: the exact GELU, or its tanh form
    bias: bool = True  # linear layers have a bias; norms always have one
    parallel_residual: bool = True  # False: the feed-forward layer reads the result of the attention

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", 4 * self.d_model)
        require_positive(self, "d_ff", "rope_theta")
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self, rotated=False)
        if self.window is not None:
            require_positive(self, "window")
        require_rope_scaling(self, require_rotary_fraction(self))


@register_model("gpt_neox")
class GPTNeoX(Decoder):
    """Blocks of attention and feed-forward, in parallel or in sequence."""

    config_class = GPTNeoXConfig

    @property
    def traits(self) -> Traits:
        # The features have variance 1, so small_init gives logits of variance 2/5, and a loss 0.2 nats above ln V.
        return replace(super().traits, uniform_at_start=False)

    def make_embedding(self, config: Any) -> Embedding:
        return Embedding(config.vocab_size, config.d_model, init=small_init(config.d_model))

    def block(self, config: Any, layer: int) -> Parallel | Stack:
        d_model, init = config.d_model, small_init(config.d_model)
        init_out = normal(2 / (config.n_layers * math.sqrt(d_model)))
        rope = Rope(config.rope_theta, config.rotary_fraction, parse_rope_scaling(config.rope_scaling))
        heads = {"n_kv_heads": config.n_kv_heads, "window": config.window, "rope": rope}
        attention = Attention(d_model, config.n_heads, **heads, bias=config.bias, init=init, init_out=init_out)
        activation = ACTIVATIONS[config.activation]
        mlp = MLP(d_model, config.d_ff, activation, gated=False, bias=config.bias, init=init, init_down=init_out)
        residuals = (Residual(self.make_norm(config), inner) for inner in (attention, mlp))
        return Parallel(*residuals) if config.parallel_residual else Stack(residuals)

    def make_norm(self, config: Any) -> LayerNorm:
        return LayerNorm(config.d_model, config.norm_eps)

    def make_head(self, config: Any) -> nn.Module:
        return make_head(self.tokens, tied=config.tie_embeddings, init=small_init(config.d_model))
