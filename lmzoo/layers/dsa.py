"""DeepSeek sparse attention (DeepSeek-AI 2025, DeepSeek-V3.2, arXiv 2512.02556): an indexer chooses what is read.

Legend: B batch, T time, D model width, H heads, S keys, N chosen keys, I heads of the indexer, J their width, P its
rotated features, Q rank of the queries, C width of the cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.latent_attention import LatentAttention
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import LayerNorm
from lmzoo.layers.offers import one_hot_values
from lmzoo.losses import auxiliary_loss
from lmzoo.ops.rope import apply_rope
from lmzoo.ops.sparse_attention import index_scores, mean_weights, sparse_attention
from lmzoo.ops.stable_topk import stable_topk
from lmzoo.state import TimeBuffer


class DSAState(NamedTuple):
    """The decoding state: the cache of latent attention (B, S, C), and the indexer's keys (B, S, J)."""

    cache: TimeBuffer
    index: TimeBuffer


class DSA(LatentAttention):
    """Latent attention that reads the `top_keys` keys with the highest scores of an indexer.

    The indexer has small heads that share one key: score(t, s) = sum_i w_ti relu(q_ti . k_s), where the weights w come
    from the token. Its first `rope_dim` features are rotated. Choices have no gradient, so the indexer learns from an
    auxiliary loss "index" in training: the Kullback-Leibler divergence of the softmax of its scores from the mean
    attention of all heads, over the chosen keys. Nothing else learns from that loss.
    """

    chooses = True

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        q_rank: int,
        top_keys: int = 64,
        index_heads: int = 4,
        index_dim: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(d_model, n_heads, q_rank=q_rank, **options)
        self.top_keys, self.index_heads, self.index_dim = top_keys, index_heads, index_dim
        self.index_q = Linear(q_rank, index_heads * index_dim, bias=False)
        self.index_k = Linear(d_model, index_dim, bias=False)
        self.index_norm = LayerNorm(index_dim, 1e-6)
        self.index_weights = Linear(d_model, index_heads, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> DSAState:  # type: ignore[override]
        """Returns empty caches with memory for `max_len` tokens."""
        index = TimeBuffer.empty(batch_size, max_len, self.index_dim, device=like.device, dtype=like.dtype)
        return DSAState(super().init_state(batch_size, max_len, like), index)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: all scores of the indexer, and two products with the chosen keys."""
        index = 2.0 * T * self.index_heads * (self.index_dim + 1)
        return index + super().flops(min(self.top_keys, T))

    def forward(self, x_BTD: Tensor, state: DSAState | None, ctx: Context) -> tuple[Tensor, DSAState | None]:  # type: ignore[override]
        low_BTQ = self.low(x_BTD)
        q_BTHK, cache_BSC = self.project(x_BTD, low_BTQ, ctx)
        index_BTIJ, keys_BSJ, weights_BTI = self.index(x_BTD.detach(), low_BTQ.detach(), ctx)
        if state is not None:
            state = DSAState(state.cache.append(cache_BSC), state.index.append(keys_BSJ))
            cache_BSC, keys_BSJ = (buffer.entries().to(x_BTD.dtype) for buffer in state)
        scores_BTN, chosen_BTN = self.choose(index_BTIJ, keys_BSJ, weights_BTI)

        def attend(q_BTHK: Tensor, k_BSGK: Tensor, v_BSGV: Tensor) -> Tensor:
            if self.training:
                self._teach(scores_BTN, mean_weights(q_BTHK.detach(), k_BSGK.detach(), chosen_BTN))
            return sparse_attention(q_BTHK, k_BSGK, v_BSGV, chosen_BTN[:, :, None])

        absorbs = state is not None and self.absorbs(x_BTD.shape[1])
        y_BTHV = (self.absorbed if absorbs else self.expanded)(q_BTHK, cache_BSC, attend)
        return self.out(y_BTHV.flatten(2)), state

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the attention weights, which are 0 for the keys that were not chosen."""
        low_BTQ = self.low(x_BTD)
        _, chosen_BTN = self.choose(*self.index(x_BTD, low_BTQ, ctx))

        def weights(q_BTHK: Tensor, k_BSHK: Tensor, _: Tensor) -> Tensor:
            return sparse_attention(q_BTHK, k_BSHK, one_hot_values(k_BSHK), chosen_BTN[:, :, None])

        return {"attention.weights": self.expanded(*self.project(x_BTD, low_BTQ, ctx), weights)}

    def choose(self, q_BTIJ: Tensor, k_BSJ: Tensor, weights_BTI: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the scores and the positions of the chosen keys, (B, T, N) each."""
        scores_BTS = index_scores(q_BTIJ, k_BSJ, weights_BTI)
        return stable_topk(scores_BTS, min(self.top_keys, scores_BTS.shape[-1]))

    def index(self, x_BTD: Tensor, low_BTQ: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the indexer's queries (B, T, I, J), its keys (B, T, J), and the weights of its heads (B, T, I)."""
        table = ctx.rope(self.rope, self.rope_dim)
        q_BTIJ = self.index_q(low_BTQ).unflatten(-1, (self.index_heads, self.index_dim))
        k_BT1J = self.index_norm(self.index_k(x_BTD))[:, :, None]
        q_BTIJ, k_BT1J = apply_rope(torch.cat([q_BTIJ, k_BT1J], dim=2), *table).split([self.index_heads, 1], dim=2)
        scale = (self.index_heads * self.index_dim) ** -0.5
        return q_BTIJ, k_BT1J[:, :, 0], self.index_weights(x_BTD) * scale

    def _teach(self, scores_BTN: Tensor, attention_BTN: Tensor) -> None:
        """Reports the divergence of the indexer's distribution from the attention over the chosen keys."""
        lowest = torch.finfo(scores_BTN.dtype).min  # for positions after the query, whose attention is 0
        log_BTN = scores_BTN.clamp(min=lowest).log_softmax(dim=-1)
        divergence_BTN = torch.xlogy(attention_BTN, attention_BTN) - attention_BTN * log_BTN
        auxiliary_loss("index", divergence_BTN.sum(dim=-1).mean())
