"""Hyper-connections: several residual streams, and learned weights with which a layer reads, writes and mixes them.

Legend: B batch, T time, N streams, M streams after the layer, D model width.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers import stack
from lmzoo.layers.context import Context
from lmzoo.layers.init import constant, normal
from lmzoo.layers.layer import Layer
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.precision import wide
from lmzoo.ops.sinkhorn import sinkhorn
from lmzoo.state import State


class Streams(Layer):
    """Replaces `x + inner(before(x))` where x is N streams (B, T, N, D).

    The layer reads a weighted sum of the streams. Its output is added to each stream with a weight, and the streams
    are mixed: `x_m = sum over n of mix[n, m] x_n + write[m] y`. A subclass computes the weights from the streams.
    """

    def __init__(self, before: nn.Module, inner: nn.Module) -> None:
        super().__init__()
        self.before, self.inner = before, inner
        self.reach = stack.reach(inner)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> State:
        """Returns the inner layer's state before the first token."""
        return stack.init_state(self.inner, batch_size, max_len, like)

    @abstractmethod
    def coefficients(self, x_BTND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the weights read (B, T, N), write (B, T, M) and mix (B, T, N, M), in float32 or wider."""

    def offers(self, x_BTND: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the weights with which the layer reads and writes the streams."""
        read_BTN, write_BTM, _ = self.coefficients(x_BTND)
        return {"streams.read": read_BTN, "streams.write": write_BTM}

    def forward(self, x_BTND: Tensor, state: State, ctx: Context) -> tuple[Tensor, State]:
        read_BTN, write_BTM, mix_BTNM = (weights.to(x_BTND.dtype) for weights in self.coefficients(x_BTND))
        x_BTD = torch.einsum("btn,btnd->btd", read_BTN, x_BTND)
        y_BTD, state = stack.call(self.inner, self.before(x_BTD), state, ctx)
        mixed_BTMD = torch.einsum("btnm,btnd->btmd", mix_BTNM, x_BTND)
        return mixed_BTMD + write_BTM[..., None] * y_BTD[..., None, :], state


class HyperConnection(Streams):
    """Weights that are a learned constant plus a small part that depends on the streams (Zhu et al. 2024, arXiv
    2409.19606).

    At first, layer number `index` reads stream `index` mod N, writes to all streams, and mixes none: together a
    pre-norm residual network. Each stream computes its own read weight, its own write weight, and its row of the
    mixture.
    """

    weight: Tensor  # (N + 2, D): outputs mix, read, write
    static: Tensor  # (N, N + 2)
    scale: Tensor  # (2,): of mix and read, of write

    def __init__(
        self,
        d_model: int,
        n_streams: int,
        before: nn.Module,
        inner: nn.Module,
        *,
        index: int = 0,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(before, inner)
        self.norm = RMSNorm(d_model, norm_eps)
        self.own("weight", (n_streams + 2, d_model), constant(0.0), "matrix")
        self.own("scale", (2,), constant(0.01))

        def fill(static: Tensor, generator: torch.Generator | None) -> None:
            static.zero_()
            static[:, :n_streams].fill_diagonal_(1.0)
            static[index % n_streams, n_streams] = 1.0
            static[:, n_streams + 1] = 1.0

        self.own("static", (n_streams, n_streams + 2), fill, "vector")

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: the weights of N streams, the read sum and the mixture."""
        N, D = len(self.static), self.weight.shape[1]
        return 2.0 * N * D * (N + 2) + 2.0 * (N + N * N) * D

    def coefficients(self, x_BTND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        N, static, scale = len(self.static), wide(self.static), wide(self.scale)
        dynamic_BTNX = torch.tanh(wide(F.linear(self.norm(x_BTND), self.weight)))
        mix_BTNM = scale[0] * dynamic_BTNX[..., :N] + static[:, :N]
        read_BTN = scale[0] * dynamic_BTNX[..., N] + static[:, N]
        return read_BTN, scale[1] * dynamic_BTNX[..., N + 1] + static[:, N + 1], mix_BTNM


class ManifoldHyperConnection(Streams):
    """Weights computed from all streams together, with a doubly stochastic mixture (Xie et al. 2025, mHC, arXiv
    2512.24880): reads are between 0 and 1, writes between 0 and 2, and `iterations` of Sinkhorn normalize the mixture.
    """

    weight: Tensor  # (N + N + N N, N D): outputs read, write, mix
    bias: Tensor  # (N + N + N N,)
    scale: Tensor  # (3,): of read, write, mix

    def __init__(
        self,
        d_model: int,
        n_streams: int,
        before: nn.Module,
        inner: nn.Module,
        *,
        iterations: int = 20,
        index: int = 0,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(before, inner)
        self.n_streams, self.iterations, self.norm_eps = n_streams, iterations, norm_eps
        width = n_streams * (2 + n_streams)
        self.own("weight", (width, n_streams * d_model), normal(), "matrix")
        self.own("scale", (3,), constant(0.01))

        def fill(bias: Tensor, generator: torch.Generator | None) -> None:
            bias.zero_()
            bias[:n_streams] = -1.0
            bias[index % n_streams] = 1.0
            bias[2 * n_streams :].view(n_streams, n_streams).fill_diagonal_(8.0)  # close to the identity

        self.own("bias", (width,), fill)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: the weights, the read sum and the mixture."""
        N = self.n_streams
        return 2.0 * self.weight.numel() + 2.0 * (N + N * N) * self.weight.shape[1] / N

    def coefficients(self, x_BTND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        N, x_BTX = self.n_streams, x_BTND.flatten(2)
        widths = [N, N, N * N]
        dynamic = wide(F.linear(F.rms_norm(x_BTX, x_BTX.shape[-1:], eps=self.norm_eps), self.weight))
        parts = zip(dynamic.split(widths, -1), wide(self.bias).split(widths), wide(self.scale), strict=True)
        read_BTN, write_BTM, mix_BTX = (scale * part + bias for part, bias, scale in parts)
        mix_BTNM = sinkhorn(mix_BTX.unflatten(-1, (N, N)), self.iterations)
        return torch.sigmoid(read_BTN), 2 * torch.sigmoid(write_BTM), mix_BTNM


class SumStreams(nn.Module):
    """Adds up the streams: (B, T, N, D) to (B, T, D)."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x_BTND: Tensor) -> Tensor:
        return x_BTND.sum(dim=2)
