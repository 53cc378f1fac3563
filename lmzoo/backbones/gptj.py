"""GPT-J (Wang & Komatsuzaki 2021) and its relatives: Phi, Cohere's Command R, and StableLM.

A transformer with LayerNorm and rotary positions. Distinctive: attention and feed-forward layer of a block read the
same normalized input, and both results are added to the residual stream; so a block has one norm, and the two layers
can run at the same time. GPT-J rotates a part of each head and its head has a bias. Phi (Li et al. 2023, arXiv
2309.05463) has biases everywhere. Command R (Cohere 2024) has no biases, SwiGLU, and scaled logits; in Command A (arXiv
2504.00698) three of four layers see a window, and the others have no positions: `pattern = "window*3 nope"`. StableLM
(Bellagente et al. 2024, arXiv 2402.17834) has SwiGLU, with a second norm and in sequence unless `parallel`. Falcon
(Almazrouei et al. 2023, arXiv 2311.16867) shares keys and values between all heads. OLMo (Groeneveld et al. 2024, arXiv
2402.00838) has norms without weights, and Jais 2 squared ReLUs, both in sequence; Persimmon (Adept 2023) has these
too, and one norm of queries and one of keys for all heads. Initial values as in the published
configurations (`initializer_range`): N(0, 0.02²) for all matrices. Deviations: rotary pairs are halves and not
neighbors; query, key and value share one projection; so do gate and up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import nn

from lmzoo.configs import require, require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.branches import Branches
from lmzoo.layers.context import Rope
from lmzoo.layers.head import TiedHead
from lmzoo.layers.head_norm import HeadLayerNorm
from lmzoo.layers.linear import Linear
from lmzoo.layers.mlp import MLP, squared_relu
from lmzoo.layers.norm import LayerNorm, UnitOffsetLayerNorm, each_head
from lmzoo.layers.pattern import pattern
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling
from lmzoo.layers.scale import Scale
from lmzoo.layers.stack import Residual, Stack
from lmzoo.ops.gelu import gelu_tanh
from lmzoo.registry import register_model

KINDS = ("rope", "window", "nope")
ACTIVATIONS = {"gelu_tanh": gelu_tanh, "gelu": F.gelu, "relu2": squared_relu}


@dataclass(frozen=True, kw_only=True)
class GPTJConfig(DecoderConfig):
    """GPT-J's sizes and options, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"gated": True, "norm_bias": False, "mlp_bias": False, "head_bias": False, "logit_scale": 0.5, "qk_norm": True},
        {"parallel": False, "attention_bias": "qkv", "head_bias": False, "tie_embeddings": True, "rotary_dim": 2},
        {"rope_scaling": "yarn factor=2 original=8"},
        {"pattern": "window nope", "window": 5, "activation": "gelu"},
        {"norm_weight": False, "norm_bias": False},
        {"norm_offset": True},
        {"shared_qk_norm": True, "parallel": False, "activation": "relu2", "head_dim": 6},
    )

    n_heads: int = 4  # attention heads
    pattern: str = "rope"  # layers from bottom to top, repeated: "window": the last tokens; "nope": no positions
    window: int = 64  # tokens that layers "window" see, the present one included
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    head_dim: int | None = None  # width of a head; None: d_model / n_heads
    d_ff: int | None = None  # width of the feed-forward layers; None: 4 d_model
    parallel: bool = True  # False: the feed-forward layer has a norm of its own and reads the result of the attention
    gated: bool = False  # SwiGLU; False: a plain layer with `activation`
    activation: Literal["gelu_tanh", "gelu", "relu2"] = "gelu_tanh"  # GELU in its tanh or exact form, or a squared ReLU
    rotary_dim: int | None = None  # features of each head that are rotated: the first ones; None: all
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    rope_scaling: str = "none"  # for longer texts: "linear factor=4" (lmzoo.layers.rope_scaling)
    qk_norm: bool = False  # queries and keys of each head are normalized
    shared_qk_norm: bool = False  # the same with one weight and one bias for all heads
    attention_bias: Literal["none", "qkv", "all"] = "none"  # attention projections with a bias
    mlp_bias: bool = True  # feed-forward layers have biases
    norm_weight: bool = True  # norms have weights
    norm_bias: bool = True  # norms have biases
    norm_offset: bool = False  # norms store their weights as differences from 1
    head_bias: bool = True  # the head has a bias
    logit_scale: float = 1.0  # factor of the logits

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", 4 * self.d_model)
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self, rotated=self.rotary_dim is None)
        pattern(self.pattern, self.n_layers, KINDS)
        require_positive(self, "d_ff", "rope_theta", "logit_scale", "window")
        head_dim = self.head_dim or self.d_model // self.n_heads
        set_default(self, "rotary_dim", head_dim)
        even = f"rotary_dim={self.rotary_dim} must be even and from 2 to head_dim={head_dim}"
        require(self.rotary_dim in range(2, head_dim + 1, 2), even)
        require_rope_scaling(self, self.rotary_dim or 0)
        message = f"norm_bias={self.norm_bias} must be False without norm_weight"
        require(self.norm_weight or not self.norm_bias, message)
        require(not (self.qk_norm and self.shared_qk_norm), "shared_qk_norm=True must be False with qk_norm")
        message = f"norm_offset={self.norm_offset} must be False without norm_weight"
        require(self.norm_weight or not self.norm_offset, message)
        message = "head_bias=True must be False with tie_embeddings=True"
        require(not (self.head_bias and self.tie_embeddings), message)


@register_model("gptj")
class GPTJ(Decoder):
    """Blocks of attention and feed-forward layer with one norm, or in sequence."""

    config_class = GPTJConfig

    def block(self, config: Any, layer: int) -> Residual | Stack:
        activation = F.silu if config.gated else ACTIVATIONS[config.activation]
        mlp = MLP(config.d_model, config.d_ff, activation, gated=config.gated, bias=config.mlp_bias)
        attention = self.make_attention(config, pattern(config.pattern, config.n_layers, KINDS)[layer])
        if config.parallel:
            return Residual(self.make_norm(config), Branches(attention, mlp))
        return Stack(Residual(self.make_norm(config), inner) for inner in (attention, mlp))

    def make_attention(self, config: Any, kind: str) -> Attention:
        """Returns attention of a kind in the pattern."""
        fraction = config.rotary_dim / (config.head_dim or config.d_model // config.n_heads)
        rope = Rope(config.rope_theta, fraction, parse_rope_scaling(config.rope_scaling))
        return Attention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            window=config.window if kind == "window" else None,
            rope=None if kind == "nope" else rope,
            qk_norm=self.make_qk_norm(config),
            bias=config.attention_bias != "none",
            out_bias=config.attention_bias == "all",
        )

    def make_qk_norm(self, config: Any) -> Callable[[int, int], nn.Module] | None:
        """Returns the maker of the norms of queries and keys, if they have any."""
        if config.shared_qk_norm:
            return each_head(partial(LayerNorm, eps=config.norm_eps))
        return partial(HeadLayerNorm, eps=config.norm_eps) if config.qk_norm else None

    def make_norm(self, config: Any) -> LayerNorm:
        norm = UnitOffsetLayerNorm if config.norm_offset else LayerNorm
        return norm(config.d_model, config.norm_eps, weight=config.norm_weight, bias=config.norm_bias)

    def make_head(self, config: Any) -> nn.Module:
        if config.tie_embeddings:
            head: nn.Module = TiedHead(self.tokens)
        else:
            head = Linear(config.d_model, config.vocab_size, bias=config.head_bias)
        return head if config.logit_scale == 1 else Scale(config.logit_scale, head)
