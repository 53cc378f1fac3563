"""Correct models whose fast forms depend on the length: attention in chunks and a scan in rounds.

Beside `base.py`, for exhibits that are wrong only beyond a length that a small form does not reach.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.precision import wide
from tests.museum.base import Cell, CellConfig, Recurrent

HEADS = 2


class ChunkedCell(nn.Module):
    """Gated linear attention: S_t = exp(g_t) S_{t-1} + k_t v_t', y_t = q_t S_t, in chunks.

    Within a chunk it is computed as attention with decays. Between chunks only the state S is carried. `c` is the sum
    of the log-decays g from the start of the chunk.
    """

    chunk: ClassVar[int] = 64
    slowness: ClassVar[float] = 16.0  # divides the log-decays, so that a state is not forgotten within one chunk

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.K = config.d_model // HEADS
        self.norm = RMSNorm(config.d_model)
        self.qkv = Linear(config.d_model, 3 * HEADS * self.K, bias=False)
        self.gate = Linear(config.d_model, HEADS)
        self.out = Linear(HEADS * self.K, config.d_model, bias=False)

    def init_state(self, B: int, like: Tensor) -> Tensor:
        return wide(like.new_zeros(B, HEADS, self.K, self.K))

    def summed(self, g_BTH: Tensor) -> Tensor:
        """Returns the sums of the log-decays from the start of the chunk, the present token included."""
        return g_BTH.cumsum(1)

    def summarize(self, k_BTHK: Tensor, v_BTHK: Tensor, c_BTH: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the decay (B, H, 1, 1) of the state over a chunk, and what the chunk adds to it (B, H, K, K)."""
        left_BTH1 = (c_BTH[:, -1:] - c_BTH).exp()[..., None]
        return c_BTH[:, -1].exp()[..., None, None], torch.einsum("bthk,bthv->bhkv", k_BTHK * left_BTH1, v_BTHK)

    def carry(self, S_BHKV: Tensor, summaries: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Returns the state before each chunk, and after the last."""
        states = [S_BHKV]
        for decay, added in summaries:
            states.append(states[-1] * decay + added)
        return states

    def read(self, q_BTHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor, c_BTH: Tensor, S_BHKV: Tensor) -> Tensor:
        """Returns the output of a chunk: of its own tokens and of the state before it."""
        T = q_BTHK.shape[1]
        decay_BHTS = (c_BTH[:, :, None] - c_BTH[:, None]).permute(0, 3, 1, 2)
        later_TS = torch.ones(T, T, dtype=torch.bool, device=q_BTHK.device).triu(1)
        decay_BHTS = decay_BHTS.masked_fill(later_TS, -torch.inf).exp()
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BTHK) * decay_BHTS
        before_BTHV = torch.einsum("bthk,bhkv->bthv", q_BTHK * c_BTH.exp()[..., None], S_BHKV)
        return torch.einsum("bhts,bshv->bthv", scores_BHTS, v_BTHK) + before_BTHV

    def mix(
        self, q_BTHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor, g_BTH: Tensor, S_BHKV: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the outputs (B, T, H, K) and the next state."""
        parts = [(q, k, v, self.summed(g)) for q, k, v, g in self.split(q_BTHK, k_BTHK, v_BTHK, g_BTH)]
        states = self.carry(S_BHKV, [self.summarize(k, v, c) for _, k, v, c in parts])
        outputs = [self.read(*part, state) for part, state in zip(parts, states, strict=False)]
        return torch.cat(outputs, dim=1), states[-1]

    def split(self, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
        """Returns the chunks of the tensors; the last may be shorter."""
        return list(zip(*(tensor.split(self.chunk, dim=1) for tensor in tensors), strict=True))

    def forward(self, x_BTD: Tensor, S_BHKV: Tensor) -> tuple[Tensor, Tensor]:
        B, T, _ = x_BTD.shape
        u_BTD = self.norm(x_BTD)
        q, k, v = wide(self.qkv(u_BTD)).view(B, T, 3, HEADS, self.K).unbind(2)
        g_BTH = F.logsigmoid(wide(self.gate(u_BTD))) / self.slowness
        y_BTHK, S_BHKV = self.mix(q * self.K**-0.5, k, v, g_BTH, S_BHKV)
        return x_BTD + self.out(y_BTHK.flatten(2).to(x_BTD.dtype)), S_BHKV


class Chunked(Recurrent):
    """Layers of gated linear attention in chunks of 64."""

    cell_class = ChunkedCell


class DoublingCell(Cell):
    """The recurrence of `Cell` in log2(T) rounds: each combines a position with the one `distance` before it.

    It forgets 16 times more slowly, so that tokens in the far past matter.
    """

    def distances(self, T: int) -> list[int]:
        """Returns the distance of each round."""
        return [2**n for n in range((T - 1).bit_length())]

    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        a_BTD = f_BTD ** (1 / 16)
        b_BTD = (1 - a_BTD) * c_BTD
        b_BTD = torch.cat([b_BTD[:, :1] + a_BTD[:, :1] * h_BD[:, None], b_BTD[:, 1:]], dim=1)
        for n in self.distances(f_BTD.shape[1]):
            b_BTD = torch.cat([b_BTD[:, :n], b_BTD[:, n:] + a_BTD[:, n:] * b_BTD[:, :-n]], dim=1)
            a_BTD = torch.cat([a_BTD[:, :n], a_BTD[:, n:] * a_BTD[:, :-n]], dim=1)
        return b_BTD, b_BTD[:, -1].clone()


class Doubling(Recurrent):
    """`Recurrent` with the scan in rounds."""

    cell_class = DoublingCell
