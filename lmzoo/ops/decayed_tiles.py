"""Queries and keys with a decay for each key channel, in tiles of a few chunks in which nothing decays any more.

Let w_t be the decays, and G_t the sum of log w from a chunk's start to t. The product of a query q_t with an earlier
key k_s of its chunk, decayed from s to t, is the product of q_t exp(G_t) with k_s exp(-G_s), in each key channel.
`Tiles` makes these vectors for `lmzoo.ops.decayed_memory`, and takes their gradients back to the inputs.

exp(G_t) is a product of decays. Its reciprocal is too large for float32 after strong decays: then the vectors of the
tile are float64, and a decay below the rounding error counts as the rounding error, which bounds the reciprocal.

G_t enters as a factor of q_t and a_{t+1} and as a divisor of k_t and b_t, so its gradient is
q_t dq_t + a_{t+1} da_{t+1} - k_t dk_t - b_t db_t, and the gradient of log w_t is the sum of the gradients of G_t and of
all later G. Everything after a tile depends on the tile's decays only through the memory S at its end, so this sum
starts anew in each tile, with S dS summed over the value axis: rounding errors of long sequences do not add up.

Legend: B batch, T time, H heads, K key width; N chunks of C positions, M = B * H, L = N * M in a tile; Q positions of
q and then of a, P positions of k and then of b in a chunk, X either of them, F = C + 1 positions, from the one before
the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lmzoo.ops.chunks import in_chunks, tiles

SMALLEST_FACTOR = 1e-20  # of a query in float32; its reciprocal, a factor of a key, is far from infinite


class Tile(NamedTuple):
    """Queries and keys of several chunks with their decays."""

    since_LFK: Tensor  # exp(G)
    inverse_LCK: Tensor  # exp(-G)
    wide_q_LQK: Tensor  # times exp(G)
    wide_k_LPK: Tensor  # times exp(-G)
    q_LQK: Tensor  # `wide_q_LQK` in the dtype of the inputs
    k_LPK: Tensor  # times exp(G_C - G), in the dtype of the inputs
    kept_LK1: Tensor  # exp(G_C)


class Tiles:
    """The queries (q, or q and a), keys (k, or k and b) and log decays of a sequence, each (B, T, H, K), in tiles.

    The queries a are decayed up to the position before, or up to their own if `late`.
    """

    def __init__(
        self, queries: Sequence[Tensor], keys: Sequence[Tensor], log_decay: Tensor, C: int, width: int, *, late: bool
    ) -> None:
        B, T, H, _ = log_decay.shape
        self.C, self.dtype, self.lead = C, log_decay.dtype, (B, H)
        self.queries, self.keys = ([in_chunks(x, C) for x in xs] for xs in (queries, keys))
        self.log_decay = in_chunks(log_decay, C)
        self.rows = (slice(1, None), slice(1, None) if late else slice(0, -1))  # of the decays of q and of a, in F
        self.slices = tiles(T // C, B * H * C * width)
        to_q_CC = log_decay.new_ones(C, C).tril()
        self.visible_QP = torch.cat((to_q_CC, to_q_CC.tril(-1))[: len(queries)]).repeat(1, len(keys))

    def cut(self, n: slice, xs: Sequence[Tensor], *, room: int = 0, dtype: torch.dtype | None = None) -> Tensor:
        """Returns the chunks n of each of xs, one after another, and room for `room` more, (L, X, K)."""
        N, B, H, C, K = xs[0][n].shape
        out_LXK = xs[0].new_empty(N * B * H, C * (len(xs) + room), K, dtype=dtype)
        for x, part_LCK in zip(xs, self._parts(out_LXK), strict=False):
            self._by_chunk(part_LCK, n).copy_(x[n])
        return out_LXK

    def paste(self, n: slice, x_LXK: Tensor, outs: Sequence[Tensor]) -> None:
        """Writes the chunks n of all outputs: the reverse of `cut`."""
        for part_LCK, out in zip(self._parts(x_LXK), outs, strict=True):
            out[n].copy_(self._by_chunk(part_LCK, n))

    def tile(self, n: slice) -> Tile:
        """Computes the chunks n."""
        since_LFK = self._since(n, self.dtype)
        if (since_LFK[:, -1] < SMALLEST_FACTOR).any():
            since_LFK = self._since(n, torch.float64)
        inverse_LCK, end_L1K, wide = since_LFK[:, 1:].reciprocal(), since_LFK[:, -1:], since_LFK.dtype
        wide_q_LQK = self._decay_queries(self.cut(n, self.queries, dtype=wide), since_LFK)
        wide_k_LPK = self._decay_keys(self.cut(n, self.keys, dtype=wide), inverse_LCK)
        narrow = (x.to(self.dtype) for x in (wide_q_LQK, wide_k_LPK * end_L1K, end_L1K.mT))
        return Tile(since_LFK, inverse_LCK, wide_q_LQK, wide_k_LPK, *narrow)

    def scores(self, tile: Tile, out_LQP: Tensor) -> None:
        """Writes the products of all queries and keys: a key is visible to later queries, and to q at its position."""
        torch.mul(torch.bmm(tile.wide_q_LQK, tile.wide_k_LPK.mT), self.visible_QP, out=out_LQP)

    def gradients(
        self, n: slice, tile: Tile, grad_q_LQK: Tensor, grad_k_LPK: Tensor, end_MK: Tensor, outs: Sequence[list[Tensor]]
    ) -> None:
        """Writes the gradients of the queries, keys and log decays, lists of views in chunks, for the chunks n.

        Args:
            n: the chunks.
            tile: what `tile` returned for them.
            grad_q_LQK: the gradients of `tile.wide_q_LQK`; overwritten.
            grad_k_LPK: the gradients of `tile.wide_k_LPK`; overwritten.
            end_MK: the gradients of G at the end of the tile.
            outs: where the gradients of the queries, the keys and the log decays are written.
        """
        queries, keys, (log_decay,) = outs
        grad_G_LFK = torch.zeros_like(tile.since_LFK)
        q_parts = zip(self._parts(grad_q_LQK), self._parts(tile.wide_q_LQK), self.rows, strict=False)
        for grad_LCK, x_LCK, rows in q_parts:
            grad_G_LFK[:, rows].addcmul_(grad_LCK, x_LCK)
        for grad_LCK, x_LCK in zip(self._parts(grad_k_LPK), self._parts(tile.wide_k_LPK), strict=True):
            grad_G_LFK[:, 1:].addcmul_(grad_LCK, x_LCK, value=-1)
        sums = grad_G_LFK.unbind(1)
        for t in reversed(range(self.C)):
            sums[t].add_(sums[t + 1])
        # The sums within each chunk lack the gradients of G from the later chunks and from the end of the tile.
        sums_NBHFK, end_BHK = self._by_chunk(grad_G_LFK, n), end_MK.unflatten(0, self.lead)
        later_NBHK = torch.cat((sums_NBHFK[1:, ..., 0, :], end_BHK[None])).flip(0).cumsum(0).flip(0)
        torch.add(sums_NBHFK[..., 1:, :], later_NBHK[..., None, :], out=log_decay[n])
        self.paste(n, self._decay_queries(grad_q_LQK, tile.since_LFK), queries)
        self.paste(n, self._decay_keys(grad_k_LPK, tile.inverse_LCK), keys)

    def _since(self, n: slice, dtype: torch.dtype) -> Tensor:
        """Returns exp(G), (L, F, K)."""
        log_LCK = self.cut(n, [self.log_decay], dtype=dtype)
        since_LFK = log_LCK.new_ones(len(log_LCK), self.C + 1, log_LCK.shape[-1])
        torch.exp(log_LCK, out=since_LFK[:, 1:])
        if dtype == torch.float64:
            since_LFK.clamp_(min=torch.finfo(self.dtype).eps)
        since = since_LFK.unbind(1)
        for t in range(1, self.C):
            since[t + 1].mul_(since[t])
        return since_LFK

    def _decay_queries(self, x_LQK: Tensor, since_LFK: Tensor) -> Tensor:
        """Multiplies queries by exp(G), in place."""
        for part_LCK, rows in zip(self._parts(x_LQK), self.rows, strict=False):
            part_LCK.mul_(since_LFK[:, rows])
        return x_LQK

    def _decay_keys(self, x_LPK: Tensor, inverse_LCK: Tensor) -> Tensor:
        """Multiplies keys by exp(-G), in place."""
        for part_LCK in self._parts(x_LPK):
            part_LCK.mul_(inverse_LCK)
        return x_LPK

    def _by_chunk(self, x_LXK: Tensor, n: slice) -> Tensor:
        """Returns a view of a tile's tensor with the axes (N, B, H, X, K)."""
        return x_LXK.unflatten(0, (n.stop - n.start, *self.lead))

    def _parts(self, x_LXK: Tensor) -> tuple[Tensor, ...]:
        """Returns views of the positions of q and of a, or of k and of b."""
        return x_LXK.split(self.C, dim=1)
