"""Hybrids: any pattern of mixers from the layer library, each followed by a feed-forward layer or experts.

Most hybrids since 2024 are a pattern: in Jamba (Lieber et al. 2024, arXiv 2403.19887) one of eight layers is attention,
seven are Mamba, and every second layer has experts; Samba (Ren et al. 2024, arXiv 2406.07522) alternates Mamba and
sliding windows. `pattern` names the mixer of each layer and is repeated over the depth: `"mamba*3 attention"`.

    attention    all earlier tokens                        mamba, mamba2       state-space layers
    nope         the same without positions                delta, gated_delta, kda   the delta rule
    window       the last `window` tokens                  linear, retention, gla    linear attention
    cross        the cache of the last attention layer     rglru, mlstm, slstm, lstm, gru, mingru   recurrences
    path         positions that depend on the text         delta_product          several steps of it per token
    shared       attention, one set of weights for all     log_linear             Mamba-2 with several memories
                 its depths, as in Zamba                   ttt                    test-time training

`attention&mamba2` runs both side by side on the same input, as Falcon-H1 does (arXiv 2507.22448). A word that ends in
`+experts` has a mixture of experts as its feed-forward layer, in `+none` no feed-forward layer. Distinctive: a few
attention layers recall exactly what a state of fixed size forgets, with a small cache. Deviations: mixers side by side
have a norm each; Zamba shares a feed-forward layer too, and its shared block is added to the input of the next Mamba
layer alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from lmzoo.configs import (
    require,
    require_between,
    require_experts,
    require_heads,
    require_inner_heads,
    require_positive,
    require_step_sizes,
    set_default,
)
from lmzoo.decoder import Decoder, MixerConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.cross_layer_attention import CrossLayerAttention
from lmzoo.layers.delta_product import DeltaProduct
from lmzoo.layers.delta_rule import DeltaRule
from lmzoo.layers.experts import Experts
from lmzoo.layers.gated_delta import GatedDelta
from lmzoo.layers.gla import GLA
from lmzoo.layers.gru import GRU
from lmzoo.layers.kda import KDA
from lmzoo.layers.linear_attention import LinearAttention
from lmzoo.layers.log_linear import LogLinearMamba2
from lmzoo.layers.lstm import LSTM
from lmzoo.layers.mamba import Mamba, default_dt_rank
from lmzoo.layers.mamba2 import Mamba2
from lmzoo.layers.min_rnn import MinRNN
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.path_attention import PathAttention
from lmzoo.layers.pattern import pattern
from lmzoo.layers.retention import Retention
from lmzoo.layers.rg_lru import RGLRU
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling, require_rotary_fraction
from lmzoo.layers.shared_attention import EMBEDDED, SharedAttention
from lmzoo.layers.stack import Parallel, Residual, Stack
from lmzoo.layers.ttt import TTT
from lmzoo.layers.xlstm import MLSTM, SLSTM
from lmzoo.registry import register_model

ATTENTION = ("attention", "nope", "window")  # mixers whose cache "cross" can read
LINEAR = ("delta", "gated_delta", "kda", "delta_product", "linear", "retention", "gla", "log_linear", "ttt")
RECURRENT = ("mamba", "mamba2", "rglru", "mlstm", "slstm", "lstm", "gru", "mingru")
UNROTATED = ("nope", "mamba", "mamba2")  # mixers that take heads of an odd width
MIXERS = (*ATTENTION, "cross", "shared", "path", *LINEAR, *RECURRENT)
FEED_FORWARDS = ("experts", "none")


@dataclass(frozen=True, kw_only=True)
class HybridConfig(MixerConfig):
    """The pattern and the sizes of its mixers, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"pattern": "window cross delta+experts attention&mamba cross"},
        {"pattern": "window cross"},
        {"pattern": "shared mamba shared"},
        {
            "pattern": "mamba2 attention",
            "rotary_fraction": 0.5,
            "rope_scaling": "yarn factor=2 original=8",
            "dt_min": 0.02,
            "dt_max": 0.05,
        },
        {"pattern": "mamba+experts nope", "select_norm": True, "normalize": False, "dt_rank": 5},
    )

    pattern: str = "mamba*3 attention"  # mixers from bottom to top, repeated up to n_layers
    n_heads: int = 4  # heads of attention, linear attention and the delta rule; blocks of the recurrences
    n_kv_heads: int | None = None  # heads of keys and values in attention; None: as many as n_heads
    window: int = 64  # tokens that "window" sees, the present one included
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    rotary_fraction: float = 1.0  # rotated share of a head's features: the first ones, rounded down to an even number
    rope_scaling: str = "none"  # for longer texts: "linear factor=4" (lmzoo.layers.rope_scaling)
    d_state: int = 16  # states per channel of "mamba", "mamba2" and "log_linear"
    d_conv: int = 4  # length of the convolutions' filters
    ssm_head_dim: int | None = None  # width of a head of "mamba2"; None: d_model / n_heads
    ssm_groups: int = 1  # groups of heads of "mamba2" that share input and output maps
    ssm_bias: bool = False  # the projections of "mamba" and "mamba2" have biases
    ssm_conv_bias: bool = True  # the convolution of "mamba" and "mamba2" has a bias
    dt_min: float = 0.0  # least step size of "mamba2"
    dt_max: float | None = None  # greatest step size of "mamba2"; None: no limit
    expand: int = 2  # inner width of "mamba" and "mamba2", divided by d_model
    dt_rank: int | None = None  # rank of the step size in "mamba"; None: d_model / 16, rounded up
    select_norm: bool = False  # RMS norms of what a token selects in "mamba": step size, input and output map (Jamba)
    negative_eigenvalues: bool = False  # beta of "delta" and "gated_delta" is up to 2 instead of 1, as in OLMo Hybrid
    n_experts: int = 8  # experts of a layer with "+experts"
    top_k: int = 2  # experts for each token
    normalize: bool = True  # the weights of the chosen experts sum to 1
    balance_loss: float = 0.02  # coefficient of the experts' balance loss

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "n_heads")
        set_default(self, "n_kv_heads", self.n_heads)
        require_positive(self, "window", "rope_theta", "d_state", "d_conv", "n_experts", "top_k")
        set_default(self, "dt_rank", default_dt_rank(self.d_model))
        require_positive(self, "expand", "dt_rank")
        if self.ssm_head_dim is not None:
            require_positive(self, "ssm_head_dim")
        require_positive(self, "ssm_groups")
        require_experts(self)
        require_between(self, "balance_loss", 0, float("inf"), below_high=True)
        before: set[str] = set()
        for word in self.words():
            mixers, feed_forward = split(word)
            ends = feed_forward in ("", *FEED_FORWARDS)
            require(ends and {*mixers} <= {*MIXERS}, f"pattern={self.pattern!r}: {word!r} must be MIXER or MIXER&MIXER")
            found = "cross" not in mixers or before & {*ATTENTION}
            require(bool(found), f"pattern={self.pattern!r}: cross must come after attention, nope or window")
            before |= {*mixers}
        rotated = not before <= {*UNROTATED}
        require_heads(self, rotated=rotated)
        require_rope_scaling(self, require_rotary_fraction(self, rotated=rotated))
        require_inner_heads(self, "ssm_head_dim", "ssm_groups", default=self.d_model // self.n_heads)
        require_step_sizes(self)

    def words(self) -> list[str]:
        """Returns the word of each layer. Raises `ConfigError` for a part that is unknown."""
        known = (*MIXERS, *FEED_FORWARDS)
        return pattern(self.pattern, self.n_layers, known, lambda word: re.split("[&+]", word))


def split(word: str) -> tuple[list[str], str]:
    """Returns the mixers of a layer, and its kind of feed-forward layer: "" for a plain one."""
    mixers, _, feed_forward = word.partition("+")
    return mixers.split("&"), feed_forward


@register_model("hybrid")
class Hybrid(Decoder):
    """Blocks of one mixer, or two side by side, and a feed-forward layer."""

    config_class = HybridConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        shared = [module for module in self.modules() if isinstance(module, SharedAttention)]
        for later in shared[1:]:
            later.share(shared[0])

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        ctx.carry[EMBEDDED] = super().embed(idx_BT, ctx)
        return ctx.carry[EMBEDDED]

    def block(self, config: Any, layer: int) -> Stack:
        words = config.words()
        mixers, feed_forward = split(words[layer])
        below = [mixer for word in words[:layer] for mixer in split(word)[0]]
        carries = any("cross" in split(word)[0] for word in words)
        source = next((mixer for mixer in reversed(below) if mixer in ATTENTION), "attention")
        make = self._makers(config, source, carries=carries)
        branches = [Residual(self.make_norm(config), make[mixer]()) for mixer in mixers]
        mixed = branches[0] if len(branches) == 1 else Parallel(*branches)
        if feed_forward == "none":
            return Stack([mixed])
        return Stack([mixed, Residual(self.make_norm(config), self._feed_forward(config, feed_forward))])

    def _makers(self, config: Any, source: str, *, carries: bool) -> Mapping[str, Callable[[], nn.Module]]:
        """Returns how each mixer is made; `source` is the attention below, whose cache "cross" reads."""
        D, H, K = config.d_model, config.n_heads, config.d_model // config.n_heads
        rope = Rope(config.rope_theta, config.rotary_fraction, parse_rope_scaling(config.rope_scaling))
        conv = {"d_conv": config.d_conv}
        ssm: dict[str, Any] = {**conv, "d_state": config.d_state, "expand": config.expand}
        ssm |= {"bias": config.ssm_bias, "conv_bias": config.ssm_conv_bias}
        groups: dict[str, Any] = {
            "n_groups": config.ssm_groups,
            "norm_eps": config.norm_eps,
            "dt_min": config.dt_min,
            "dt_max": config.dt_max,
        }
        select = partial(RMSNorm, eps=config.norm_eps) if config.select_norm else None
        delta: dict[str, Any] = {**conv, "negative_eigenvalues": config.negative_eigenvalues}
        attention = partial(Attention, D, H, n_kv_heads=config.n_kv_heads, carries=carries)
        crossed = {"rope": None if source == "nope" else rope, "window": config.window if source == "window" else None}
        return {
            "attention": partial(attention, rope=rope),
            "nope": attention,
            "window": partial(attention, rope=rope, window=config.window),
            "cross": partial(CrossLayerAttention, D, H, **crossed),
            "shared": partial(SharedAttention, D, H, n_kv_heads=config.n_kv_heads, rope=rope),
            "mamba": partial(Mamba, D, dt_rank=config.dt_rank, select_norm=select, **ssm),
            "mamba2": partial(Mamba2, D, head_dim=config.ssm_head_dim or K, **groups, **ssm),
            "delta": partial(DeltaRule, D, H, **delta),
            "gated_delta": partial(GatedDelta, D, H, K, K, **delta),
            "kda": partial(KDA, D, H, K, **conv),
            "linear": partial(LinearAttention, D, H),
            "retention": partial(Retention, D, H, rope=rope),
            "gla": partial(GLA, D, H),
            "rglru": partial(RGLRU, D, H, **conv),
            "mlstm": partial(MLSTM, D, H, **conv),
            "slstm": partial(SLSTM, D, H, **conv),
            "lstm": partial(LSTM, D),
            "gru": partial(GRU, D),
            "mingru": partial(MinRNN, D),
            "ttt": partial(TTT, D, H, rope_theta=config.rope_theta, **conv),
            "path": partial(PathAttention, D, H, n_kv_heads=config.n_kv_heads),
            "delta_product": partial(DeltaProduct, D, H, K, K, **conv),
            "log_linear": partial(LogLinearMamba2, D, d_state=config.d_state, head_dim=K, **conv),
        }

    def _feed_forward(self, config: Any, kind: str) -> nn.Module:
        if kind != "experts":
            return MLP(config.d_model, config.d_ff)
        sizes = (config.d_model, config.d_ff, config.n_experts, config.top_k)
        return Experts(*sizes, normalize=config.normalize, balance_loss=config.balance_loss)
