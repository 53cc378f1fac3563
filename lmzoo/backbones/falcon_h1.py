"""Falcon-H1 (TII 2025, arXiv 2507.22448): attention and Mamba-2 side by side in every layer, with many multipliers.

Distinctive: both mixers read the same normalized input and their outputs are added, so each layer can recall exactly
and keep a summary of fixed size, and the number of attention heads is chosen freely. Constants multiply embeddings,
logits, keys, the five parts of Mamba-2's projection, and the inputs and outputs of the layers; they are tuned in place
of a learning rate for each matrix (maximal update parametrization, arXiv 2203.03466). The base of the rotary
wavelengths is 1e11. Mamba-2 is narrower than twice the model, and its output has no norm in the smaller models.
Multipliers as in the configuration of Falcon-H1-0.5B. Initial values: N(0, 0.02²) for all matrices but Mamba-2's, which
are those of its authors. Deviations: query, key and value share one projection; so do gate and up; filters get no
weight decay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.configs import require_divides, require_heads, require_positive, require_step_sizes, set_default
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.branches import Branches
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.mlp import MLP, swiglu_width
from lmzoo.layers.rope_scaling import parse_rope_scaling, require_rope_scaling
from lmzoo.layers.scale import Scale
from lmzoo.layers.scaled_mamba2 import ScaledMamba2
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class FalconH1Config(DecoderConfig):
    """Falcon-H1's sizes and multipliers, in addition to `DecoderConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8, "d_ssm": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = (
        {"ssm_norm": "before", "ssm_groups": 2, "rope_scaling": "linear factor=2"},
        {"ssm_norm": "after", "ssm_groups": 2, "head_dim": 6, "dt_max": 0.02},
    )

    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    head_dim: int | None = None  # width of a head of attention; None: d_model / n_heads
    d_ff: int | None = None  # width of the feed-forward layers; None: 8/3 d_model, rounded up to a multiple of 32
    rope_theta: float = 1e11  # base of the rotary wavelengths
    rope_scaling: str = "none"  # for longer texts: "yarn factor=4 original=4096" (lmzoo.layers.rope_scaling)
    d_ssm: int | None = None  # inner width of Mamba-2; None: 3/2 d_model
    ssm_heads: int = 4  # heads of Mamba-2
    ssm_groups: int = 1  # groups of heads of Mamba-2 that share input and output maps
    d_state: int = 16  # states per channel
    d_conv: int = 4  # length of the convolution's filters
    ssm_conv_bias: bool = True  # the convolution has a bias
    dt_min: float = 0.0  # least step size of Mamba-2
    dt_max: float | None = None  # greatest step size of Mamba-2; None: no limit
    ssm_norm: Literal["none", "before", "after"] = "none"  # a norm of Mamba-2's output, before or after the gate
    embedding_scale: float = 5.656854249492381  # factor of the embeddings
    attention_in_scale: float = 1.0  # factor of the input of attention
    key_scale: float = 0.390625  # factor of the keys
    attention_out_scale: float = 0.9375  # factor of the output of attention
    ssm_in_scale: float = 1.25  # factor of the input of Mamba-2
    ssm_gate_scale: float = 0.3535533905932738  # factor of Mamba-2's projected gate
    ssm_x_scale: float = 0.25  # factor of Mamba-2's projected input, which the memory gets
    ssm_b_scale: float = 0.3535533905932738  # factor of Mamba-2's projected input map B
    ssm_c_scale: float = 0.5  # factor of Mamba-2's projected output map C
    ssm_dt_scale: float = 0.3535533905932738  # factor of Mamba-2's projected step size
    ssm_out_scale: float = 0.23570226039551587  # factor of the output of Mamba-2
    mlp_gate_scale: float = 0.8838834764831844  # factor of the feed-forward layer's gate, before silu
    mlp_out_scale: float = 0.5859375  # factor of the output of the feed-forward layer
    logit_scale: float = 0.0390625  # factor of the logits

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self)
        set_default(self, "d_ff", swiglu_width(self.d_model))
        set_default(self, "d_ssm", 3 * self.d_model // 2)
        require_positive(self, "d_ff", "rope_theta", "d_ssm", "ssm_heads", "ssm_groups", "d_state", "d_conv")
        require_divides(self, "ssm_heads", "d_ssm")
        require_divides(self, "ssm_groups", "ssm_heads")
        require_positive(self, *SCALES)
        require_step_sizes(self)
        require_rope_scaling(self, self.head_dim or self.d_model // self.n_heads)


SCALES = (
    *("embedding_scale", "attention_in_scale", "key_scale", "attention_out_scale", "ssm_in_scale", "ssm_gate_scale"),
    *("ssm_x_scale", "ssm_b_scale", "ssm_c_scale", "ssm_dt_scale", "ssm_out_scale", "mlp_gate_scale"),
    *("mlp_out_scale", "logit_scale"),
)


@register_model("falcon_h1")
class FalconH1(Decoder):
    """Blocks of attention and Mamba-2 side by side, and SwiGLU."""

    config_class = FalconH1Config

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        config: Any = self.config
        return config.embedding_scale * self.tokens(idx_BT)

    def block(self, config: Any, layer: int) -> Stack:
        # A factor a of the input of attention multiplies queries, keys and values: the scores get a², the output a.
        attention_scale = config.attention_in_scale * config.attention_out_scale
        attention = Stack([self.make_attention(config), Scale(attention_scale)])
        mamba = Stack([self.make_mamba(config), Scale(config.ssm_out_scale)])
        mlp = MLP(config.d_model, config.d_ff, ScaledSilu(config.mlp_gate_scale))
        mixers = Residual(self.make_norm(config), Branches(attention, mamba))
        return Stack([mixers, Residual(self.make_norm(config), mlp, Scale(config.mlp_out_scale))])

    def make_attention(self, config: Any) -> Attention:
        """Returns the attention of one block, without the factor of its output."""
        head_dim = config.head_dim or config.d_model // config.n_heads
        return Attention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            head_dim=head_dim,
            rope=Rope(config.rope_theta, scaling=parse_rope_scaling(config.rope_scaling)),
            scale=config.attention_in_scale**2 * config.key_scale / math.sqrt(head_dim),
        )

    def make_mamba(self, config: Any) -> ScaledMamba2:
        """Returns Mamba-2 of one block, without the factor of its output."""
        scales = (getattr(config, f"ssm_{part}_scale") for part in ("gate", "x", "b", "c", "dt"))
        return ScaledMamba2(
            config.d_model,
            factors=[config.ssm_in_scale * scale for scale in scales],
            gate_last=config.ssm_norm == "before",
            d_inner=config.d_ssm,
            head_dim=config.d_ssm // config.ssm_heads,
            n_groups=config.ssm_groups,
            d_state=config.d_state,
            d_conv=config.d_conv,
            conv_bias=config.ssm_conv_bias,
            dt_min=config.dt_min,
            dt_max=config.dt_max,
            normalized=config.ssm_norm != "none",
            norm_eps=config.norm_eps,
        )

    def make_head(self, config: Any) -> nn.Module:
        return Scale(config.logit_scale, super().make_head(config))


@dataclass(frozen=True)
class ScaledSilu:
    """The function `silu(factor * x)`."""

    __name__: ClassVar[str] = "scaled silu"
    factor: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.silu(self.factor * x)
