"""Engram: a memory of n-grams, looked up by hashes of the last tokens (Cheng et al. 2026, arXiv 2601.07372).

Legend: B batch, T time, D model width, N longest n-gram, X tables, E features of all tables together, W filter length.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import constant, normal
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import UnitOffsetRMSNorm
from lmzoo.ops.dilated_taps import dilated_taps
from lmzoo.ops.ngram_hash import hash_multipliers, ngram_hash, prime_sizes
from lmzoo.ops.precision import wide

TOKENS = "tokens"  # in `Context.carry`: the ids of this pass, (B, T)
LEAST_GATE = 1e-6  # below it, the square root of a score has no slope


class EngramState(NamedTuple):
    """The last N - 1 token ids, and the last (W - 1) N inputs of the convolution."""

    past_BN: Tensor
    tail_BSD: Tensor


class Engram(Layer):
    """Reads the tables at the hashes of the last 2 ... N tokens, and gates what it finds by the hidden state.

    Every n has `n_heads` tables with at least `table_size` rows. `index` is the number of such memories before this one
    in the model: they have other hashes. A token before the first one has the id `vocab_size`. The convolution starts
    at zero. The layer reads the token ids from `ctx.carry`.
    """

    state_growth = "constant"
    table: Tensor  # (rows of all tables, E / X)
    conv: Tensor  # (D, W)

    def __init__(
        self,
        d_model: int,
        vocab_size: int,
        *,
        memory_dim: int,
        table_size: int,
        max_ngram: int = 3,
        n_heads: int = 4,
        d_conv: int = 4,
        index: int = 0,
        seed: int = 0,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.vocab_size, self.max_ngram, self.d_conv = vocab_size, max_ngram, d_conv
        self.reach = d_conv * max_ngram
        n_tables = (max_ngram - 1) * n_heads
        self.multipliers = hash_multipliers(max_ngram, vocab_size + 1, seed + 10007 * index)
        self.sizes = prime_sizes(table_size, max_ngram - 1, n_heads, skip=index * n_tables)
        rows = sum(map(sum, self.sizes))
        self.own("table", (rows, memory_dim // n_tables), normal(), "embedding")
        self.active = {"table": n_tables / rows}
        self.key = Linear(memory_dim, d_model, bias=False)
        self.value = Linear(memory_dim, d_model, bias=False)
        self.key_norm = UnitOffsetRMSNorm(d_model, norm_eps)
        self.query_norm = UnitOffsetRMSNorm(d_model, norm_eps)
        self.conv_norm = UnitOffsetRMSNorm(d_model, norm_eps)
        self.own("conv", (d_model, d_conv), constant(0.0), "vector")

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> EngramState:
        """Returns the ids `vocab_size` and zeros."""
        past_BN = like.new_full((batch_size, self.max_ngram - 1), self.vocab_size, dtype=torch.int64)
        return EngramState(past_BN, like.new_zeros(batch_size, (self.d_conv - 1) * self.max_ngram, len(self.conv)))

    def forward(self, x_BTD: Tensor, state: EngramState | None, ctx: Context) -> tuple[Tensor, EngramState | None]:
        idx_BT = ctx.carry[TOKENS]
        past_BN = self.init_state(len(idx_BT), 0, idx_BT).past_BN if state is None else state.past_BN
        value_BTD = self.look_up(x_BTD, ngram_hash(idx_BT, past_BN, self.multipliers, self.sizes))
        tail_BSD = None if state is None else state.tail_BSD
        taps_BTX, after_BSD = dilated_taps(self.conv_norm(value_BTD), self.d_conv, self.max_ngram, tail_BSD)
        taps_BTWD = taps_BTX.unflatten(-1, (self.d_conv, -1))
        y_BTD = value_BTD + F.silu((taps_BTWD * self.conv.t().to(x_BTD.dtype)).sum(dim=-2))
        if state is None:
            return y_BTD, None
        past_BN = torch.cat([past_BN, idx_BT], dim=1)[:, idx_BT.shape[1] :]
        return y_BTD, EngramState(past_BN, after_BSD.to(state.tail_BSD.dtype))

    def look_up(self, x_BTD: Tensor, rows_BTX: Tensor) -> Tensor:
        """Returns the values of the rows, each multiplied by a gate from its key and the hidden state: (B, T, D)."""
        found_BTE = F.embedding(rows_BTX, self.table).flatten(-2)
        return self.gate(x_BTD, found_BTE)[..., None].to(x_BTD.dtype) * self.value(found_BTE)

    def gate(self, x_BTD: Tensor, found_BTE: Tensor) -> Tensor:
        """Returns the factors of what was found, (B, T), in float32 or wider."""
        key_BTD, query_BTD = wide(self.key_norm(self.key(found_BTE))), wide(self.query_norm(x_BTD))
        score_BT = (key_BTD * query_BTD).sum(dim=-1) / math.sqrt(x_BTD.shape[-1])
        score_BT = score_BT.abs().clamp(min=LEAST_GATE).sqrt() * score_BT.sign()
        return torch.sigmoid(score_BT)

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the gates."""
        idx_BT = ctx.carry[TOKENS]
        past_BN = self.init_state(len(idx_BT), 0, idx_BT).past_BN
        rows_BTX = ngram_hash(idx_BT, past_BN, self.multipliers, self.sizes)
        return {"gates.output": self.gate(x_BTD, F.embedding(rows_BTX, self.table).flatten(-2))}
