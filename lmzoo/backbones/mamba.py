"""Mamba (Gu & Dao 2023, arXiv 2312.00752): a state-space model whose transitions depend on the token.

A stack of identical blocks, each a projection, a short causal convolution, the selective scan, and a gate. Distinctive:
the step size delta, and how a token writes to (B) and reads from (C) the state, are computed from the token itself, so
the model chooses what to keep; the state has a fixed size. Initialised as in the authors' code (named where it
happens). Deviations: the step size is computed in float32 under autocast; the convolution's filter is not decayed.

Legend: D model width, E inner width, N states per channel, W convolution width, R rank of the step size's projection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.configs import require_positive
from lmzoo.layers.linear import Embedding, make_head
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.stack import Stack
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.ops.causal_conv1d import causal_conv1d
from lmzoo.ops.selective_scan import selective_scan
from lmzoo.registry import register_model
from lmzoo.state import State

DELTA_MIN, DELTA_MAX = 1e-3, 1e-1  # step sizes at the start: log-uniform in between


@dataclass(frozen=True, kw_only=True)
class MambaConfig(ModelConfig):
    """Mamba's sizes; `ModelConfig` has the rest."""

    d_model: int = 128
    n_layers: int = 4
    d_state: int = 16  # states per channel
    d_conv: int = 4  # width of the convolution
    expand: int = 2  # inner width / d_model
    dt_rank: int | None = None  # rank of the step size's projection; None: d_model / 16, rounded up
    norm_eps: float = 1e-5
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "d_model", "n_layers", "d_state", "d_conv", "expand", "norm_eps")
        if self.dt_rank is not None:
            require_positive(self, "dt_rank")


class MambaState(NamedTuple):
    """What a mixer hands to its next step."""

    tail: Tensor  # (B, W - 1, E), the convolution's last inputs
    h: Tensor  # (B, E, N), float32 or wider


class UniformLinear(nn.Linear):
    """A linear map without a bias whose weight begins uniform in ±scale/sqrt(d_in); torch's habit is scale 1."""

    def __init__(self, d_in: int, d_out: int, *, scale: float = 1.0) -> None:
        self.scale = scale
        super().__init__(d_in, d_out, bias=False)

    def reset_parameters(self) -> None:
        """What torch's constructor calls to draw the first weights."""
        self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the parameters anew, by `generator` or by the global random state."""
        bound = self.scale / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)


class Mixer(nn.Module):
    """The block of the paper's figure 3, without norm and residual."""

    parameter_roles: ClassVar[dict[str, str]] = {"A_log": "vector", "conv_weight": "vector"}

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        E, N, W = config.expand * config.d_model, config.d_state, config.d_conv
        R = config.dt_rank or math.ceil(config.d_model / 16)
        self.widths = [R, N, N]
        self.in_proj = UniformLinear(config.d_model, 2 * E)
        self.conv_weight = nn.Parameter(torch.empty(E, W))
        self.conv_bias = nn.Parameter(torch.empty(E))
        self.x_proj = UniformLinear(E, sum(self.widths))
        self.dt_proj = UniformLinear(R, E)
        self.dt_bias = nn.Parameter(torch.empty(E))
        self.A_log = nn.Parameter(torch.empty(E, N))
        self.D = nn.Parameter(torch.empty(E))
        self.out_proj = UniformLinear(E, config.d_model, scale=1 / math.sqrt(config.n_layers))
        self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the parameters anew, by `generator` or by the global random state."""
        bound = 1 / math.sqrt(self.conv_weight.shape[1])
        nn.init.uniform_(self.conv_weight, -bound, bound, generator=generator)
        nn.init.uniform_(self.conv_bias, -bound, bound, generator=generator)
        with torch.no_grad():
            # S4D-real: the n-th state of every channel decays at the rate n.
            rates_N = torch.arange(1, self.A_log.shape[1] + 1, device=self.A_log.device)
            self.A_log.copy_(rates_N.log().expand_as(self.A_log))
            self.D.fill_(1.0)
            # softplus(dt_bias) shall be delta, so dt_bias = log(exp(delta) - 1), in a form that does not cancel.
            self.dt_bias.uniform_(math.log(DELTA_MIN), math.log(DELTA_MAX), generator=generator)
            delta_E = self.dt_bias.exp()
            self.dt_bias.copy_(delta_E + torch.log(-torch.expm1(-delta_E)))

    def empty_state(
        self, batch_size: int, max_len: int, *, device: torch.device | None, dtype: torch.dtype | None
    ) -> MambaState:
        """Its piece of the decoding state before the first token."""
        E, W = self.conv_weight.shape
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        tail = torch.zeros(batch_size, W - 1, E, device=device, dtype=dtype)
        return MambaState(tail, torch.zeros(batch_size, *self.A_log.shape, device=device, dtype=wide))

    def flops(self, T: int) -> float:
        """A multiply-add per tap of the convolution, and two per state of the scan: one in, one out."""
        return 2.0 * self.conv_weight.numel() + 4.0 * self.A_log.numel()

    def forward(self, x_BTD: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState | None]:
        """(B, T, D) and its piece of the state to (B, T, D) and the next piece; None stays None."""
        tail, h = (None, None) if state is None else state
        u_BTE, gate_BTE = self.in_proj(x_BTD).chunk(2, dim=-1)
        u_BTE, tail = causal_conv1d(u_BTE, self.conv_weight, self.conv_bias, tail)
        u_BTE = F.silu(u_BTE)
        dt_BTR, B_BTN, C_BTN = self.x_proj(u_BTE).split(self.widths, dim=-1)
        # `+ dt_bias` in the bias's own precision: small step sizes, long memories, would be lost in bfloat16.
        delta_BTE = F.softplus(self.dt_proj(dt_BTR).to(self.dt_bias.dtype) + self.dt_bias)
        A_EN = -torch.exp(self.A_log)
        y_BTE, h = selective_scan(u_BTE, delta_BTE, A_EN, B_BTN, C_BTN, self.D, h)
        y_BTD = self.out_proj(y_BTE * F.silu(gate_BTE))
        return y_BTD, None if state is None else MambaState(tail, h)


class Block(nn.Module):
    """x + mixer(norm(x)): there is no separate feed-forward layer."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.mixer = Mixer(config)

    def empty_state(
        self, batch_size: int, max_len: int, *, device: torch.device | None, dtype: torch.dtype | None
    ) -> MambaState:
        """Its piece of the decoding state before the first token."""
        return self.mixer.empty_state(batch_size, max_len, device=device, dtype=dtype)

    def forward(self, x_BTD: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState | None]:
        """(B, T, D) and its piece of the state to (B, T, D) and the next piece; None stays None."""
        y_BTD, state = self.mixer(self.norm(x_BTD), state)
        return x_BTD + y_BTD, state


@register_model("mamba")
class Mamba(LanguageModel):
    """Token embeddings, `n_layers` blocks, a final norm, a head."""

    config_class = MambaConfig
    config: MambaConfig

    def __init__(self, config: MambaConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.d_model)
        self.blocks = Stack(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = make_head(self.tokens, tied=config.tie_embeddings)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, state_growth="constant")

    def empty_state(
        self, batch_size: int, max_len: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return self.blocks.empty_state(batch_size, max_len, device=device, dtype=dtype)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = self.blocks(self.tokens(idx_BT), state)
        return self.norm(x_BTD), state
