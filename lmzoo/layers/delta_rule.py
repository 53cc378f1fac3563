"""DeltaNet's mixer: a matrix state updated by the delta rule (Schlag et al. 2021, arXiv 2102.11174; Yang et al. 2024,
arXiv 2406.06484).

Legend: B batch, T time, D model width, H heads, K width of a head.
"""

from __future__ import annotations

from typing import NamedTuple

from einops import rearrange
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm, l2_normalize
from lmzoo.layers.projections import Projection, output, split_rows
from lmzoo.layers.short_conv import ShortConv
from lmzoo.ops.delta_rule import delta_rule
from lmzoo.ops.precision import wide_dtype


class DeltaState(NamedTuple):
    """The decoding state of the mixer."""

    tail: Tensor  # (B, W - 1, 3 D), the convolution's last inputs
    memory: Tensor  # (B, H, K, K), keys by values, float32 or wider


class DeltaRule(Layer):
    """A matrix S per head that maps keys to values: `S += beta (v - S k) k^T`, `y = S q`.

    Each token moves the value stored under its key, `S k`, towards its own value v by the share beta, and then reads
    with its query. Keys have unit norm, so beta = 1 replaces the stored value. With `negative_eigenvalues` beta can be
    up to 2, which makes the transition a reflection (Grazzi et al. 2024, arXiv 2411.12537).
    """

    reach = None
    state_growth = "constant"

    def __init__(
        self, d_model: int, n_heads: int, *, d_conv: int = 4, negative_eigenvalues: bool = False, norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.n_heads, self.head_dim = n_heads, d_model // n_heads
        self.largest_beta = 2.0 if negative_eigenvalues else 1.0
        self.qkv = Linear(d_model, 3 * d_model, bias=False)
        self.conv = ShortConv(3 * d_model, d_conv, bias=False)
        self.beta = Linear(d_model, n_heads, bias=False)
        self.norm = RMSNorm(self.head_dim, norm_eps)
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> DeltaState:
        """Returns zeros for the convolution's last inputs and for the matrices."""
        shape = (batch_size, self.n_heads, self.head_dim, self.head_dim)
        memory_BHKV = like.new_zeros(shape, dtype=wide_dtype(like.dtype))
        return DeltaState(self.conv.init_state(batch_size, max_len, like), memory_BHKV)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add per entry of S for each of two reads and one write."""
        return 6.0 * self.n_heads * self.head_dim**2

    def transferable(self) -> dict[str, Projection]:
        heads = (self.n_heads, self.head_dim)
        return {**split_rows(self.qkv, q=heads, k=heads, v=heads), "out": output(self.out, *heads)}

    def forward(self, x_BTD: Tensor, state: DeltaState | None, ctx: Context) -> tuple[Tensor, DeltaState | None]:
        tail, memory = (None, None) if state is None else state
        qkv, tail = self.conv(self.qkv(x_BTD), tail, ctx)
        q_BTHK, k_BTHK, v_BTHK = rearrange(qkv, "b t (n h k) -> n b t h k", n=3, h=self.n_heads)
        q_BTHK, k_BTHK = l2_normalize(q_BTHK) * self.head_dim**-0.5, l2_normalize(k_BTHK)
        beta_BTH = self.strength(x_BTD)
        y_BTHK, memory = delta_rule(q_BTHK, k_BTHK, v_BTHK, beta_BTH, memory, largest_beta=self.largest_beta)
        return self.out(self.norm(y_BTHK).flatten(2)), None if state is None else DeltaState(tail, memory)

    def strength(self, x_BTD: Tensor) -> Tensor:
        """Returns beta, the share of the stored value that is replaced, (B, T, H)."""
        return self.largest_beta * self.beta(x_BTD).sigmoid()

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns beta."""
        return {"gates.write": self.strength(x_BTD)}
