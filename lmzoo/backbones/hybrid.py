"""Hybrids: any pattern of mixers from the layer library, each followed by a feed-forward layer or experts.

Most hybrids since 2024 are a pattern: in Jamba (Lieber et al. 2024, arXiv 2403.19887) one of eight layers is attention,
seven are Mamba, and every second layer has experts; Samba (Ren et al. 2024, arXiv 2406.07522) alternates Mamba and
sliding windows. `pattern` names the mixer of each layer and is repeated over the depth: `"mamba*3 attention"`.

    attention   all earlier tokens                      mamba   selective scan
    window      the last `window` tokens                delta   delta rule
    cross       the cache of the last attention layer   lstm    LSTM cells

A word followed by `+experts` has a mixture of experts as its feed-forward layer. Distinctive: a few attention layers
recall exactly what a state of fixed size forgets, with a small cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import nn

from lmzoo.configs import require, require_between, require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, MixerConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Rope
from lmzoo.layers.cross_layer_attention import CrossLayerAttention
from lmzoo.layers.delta_rule import DeltaRule
from lmzoo.layers.experts import Experts
from lmzoo.layers.lstm import LSTM
from lmzoo.layers.mamba import Mamba
from lmzoo.layers.mlp import MLP
from lmzoo.layers.pattern import pattern
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model

MIXERS = ("attention", "window", "cross", "mamba", "delta", "lstm")
EXPERTS = "+experts"
WORDS = (*MIXERS, *(f"{mixer}{EXPERTS}" for mixer in MIXERS))


@dataclass(frozen=True, kw_only=True)
class HybridConfig(MixerConfig):
    """The pattern and the sizes of its mixers, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"pattern": "window cross delta+experts mamba lstm attention cross"},
        {"pattern": "window cross"},
    )

    pattern: str = "mamba*3 attention"  # mixers from bottom to top, repeated up to n_layers
    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    window: int = 64  # tokens that "window" sees, the present one included
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    d_state: int = 16  # states per channel of "mamba"
    d_conv: int = 4  # length of the convolution's filters in "mamba" and "delta"
    n_experts: int = 8  # experts of a layer with "+experts"
    top_k: int = 2  # experts for each token
    balance_loss: float = 0.02  # coefficient of the experts' balance loss

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self)
        require_positive(self, "window", "rope_theta", "d_state", "d_conv", "n_experts", "top_k")
        require(self.top_k <= self.n_experts, f"top_k={self.top_k} must be at most n_experts={self.n_experts}")
        require_between(self, "balance_loss", 0, float("inf"), below_high=True)
        for word in pattern(self.pattern, self.n_layers, WORDS):
            mixer = word.removesuffix(EXPERTS)
            require(mixer != "cross", f"pattern={self.pattern!r}: cross must come after attention or window")
            if mixer in ("attention", "window"):
                break


@register_model("hybrid")
class Hybrid(Decoder):
    """Blocks of a mixer and a feed-forward layer."""

    config_class = HybridConfig

    def block(self, config: Any, layer: int) -> Stack:
        words = pattern(config.pattern, config.n_layers, WORDS)
        mixers = [word.removesuffix(EXPERTS) for word in words]
        sees_all = next((m for m in reversed(mixers[: layer + 1]) if m in ("attention", "window")), "") == "attention"
        window, rope = (None if sees_all else config.window), Rope(config.rope_theta)
        d_model, n_heads = config.d_model, config.n_heads
        options = {"n_kv_heads": config.n_kv_heads, "window": window, "rope": rope, "carries": "cross" in mixers}
        attention = partial(Attention, d_model, n_heads, **options)
        make: dict[str, Callable[[], nn.Module]] = {
            "attention": attention,
            "window": attention,
            "cross": lambda: CrossLayerAttention(d_model, n_heads, window=window, rope=rope),
            "mamba": lambda: Mamba(d_model, d_state=config.d_state, d_conv=config.d_conv),
            "delta": lambda: DeltaRule(d_model, n_heads, d_conv=config.d_conv),
            "lstm": lambda: LSTM(d_model),
        }
        layers = (make[mixers[layer]](), self._feed_forward(config, experts=words[layer].endswith(EXPERTS)))
        return Stack(Residual(self.make_norm(config), inner) for inner in layers)

    def _feed_forward(self, config: Any, *, experts: bool) -> nn.Module:
        if not experts:
            return MLP(config.d_model, config.d_ff)
        sizes = (config.d_model, config.d_ff, config.n_experts, config.top_k)
        return Experts(*sizes, balance_loss=config.balance_loss)
