"""Native sparse attention (Yuan et al. 2025, arXiv 2502.11089): compressed blocks, chosen blocks, and a window.

Legend: B batch, T time, D model width, H query heads, G key/value heads, K head width, S keys, M complete blocks,
W keys of the window, C tokens of a block, F inner width of a compression. An axis of 2 holds keys and values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context, Rope
from lmzoo.layers.init import normal, uniform_fan_in
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.offers import one_hot_values
from lmzoo.layers.projections import Projection, output, split_rows
from lmzoo.ops.attention import causal_attention
from lmzoo.ops.counting import counted_as
from lmzoo.ops.rope import apply_rope
from lmzoo.ops.sparse_attention import FORCED, block_attention, choose_blocks, sparse_attention
from lmzoo.state import TimeBuffer


class NSAState(NamedTuple):
    """The decoding state: keys and values (B, entries, 2, G, K) for each branch."""

    recent: TimeBuffer  # to be compressed: the last C tokens
    blocks: TimeBuffer  # compressed, one entry per complete block
    chosen: TimeBuffer  # all tokens, of which a query reads chosen blocks
    window: TimeBuffer


class BlockMLP(Layer):
    """Maps the keys, or the values, of the tokens of a block to one: a small network with positions in the block."""

    positions: Tensor  # (C, K)
    up: Tensor  # (F, C K), where F is K
    down: Tensor  # (K, F)

    def __init__(self, block_length: int, head_dim: int) -> None:
        super().__init__()
        self.own("positions", (block_length, head_dim), normal(), "vector")
        self.own("up", (head_dim, block_length * head_dim), uniform_fan_in(), "matrix")
        self.own("down", (head_dim, head_dim), uniform_fan_in(), "matrix")

    def forward(self, x_BMGCK: Tensor) -> Tensor:
        """Maps (B, M, G, C, K) to (B, M, G, K)."""
        hidden_BMGF = F.gelu(F.linear((x_BMGCK + self.positions).flatten(-2), self.up))
        return F.linear(hidden_BMGF, self.down)


class NSA(Layer):
    """The sum of three attentions that share their queries, each with keys and values of its own and a gate per head.

    1. To one compressed key and value for each complete block of `block_length` tokens.
    2. To all tokens of chosen blocks: the first, the present and the previous one, and those `top_blocks` others that
       have the largest weights in the first attention, summed over the query heads of a key head.
    3. To the last `window` tokens.

    A compressed key is rotated to the position of the last token of its block. The compressed attention is learned with
    the rest, so the choices are, too, though they have no gradient.
    """

    reach = None
    state_growth = "linear"
    chooses = True

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        block_length: int = 16,
        top_blocks: int = 4,
        window: int = 64,
        rope: Rope = Rope(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads or n_heads, d_model // n_heads
        self.block_length, self.top_blocks, self.window, self.rope = block_length, top_blocks, window, rope
        self.q = Linear(d_model, n_heads * self.head_dim, bias=False)
        self.kv = Linear(d_model, 6 * self.n_kv_heads * self.head_dim, bias=False)
        self.compress_k = BlockMLP(block_length, self.head_dim)
        self.compress_v = BlockMLP(block_length, self.head_dim)
        self.gates = Linear(d_model, 3 * n_heads)
        self.out = Linear(n_heads * self.head_dim, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> NSAState:
        """Returns empty buffers with memory for `max_len` tokens."""

        def empty(length: int, window: int | None = None) -> TimeBuffer:
            shape, kept = (2, self.n_kv_heads, self.head_dim), {"device": like.device, "dtype": like.dtype}
            return TimeBuffer.empty(batch_size, length, *shape, window=window, **kept)

        blocks = empty(max_len // self.block_length)
        return NSAState(empty(max_len, self.block_length), blocks, empty(max_len), empty(max_len, self.window))

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: the compression, and two products with the keys that each attention reads."""
        blocks = T // self.block_length
        chosen = min(FORCED + self.top_blocks, -(-T // self.block_length)) * self.block_length
        compression = 4.0 * self.n_kv_heads * (self.compress_k.up.numel() + self.compress_k.down.numel())
        keys = blocks + chosen + min(self.window, T)
        return compression * blocks / T + 4.0 * keys * self.n_heads * self.head_dim

    def transferable(self) -> dict[str, Projection]:
        heads = (self.n_heads, self.head_dim)
        kv = split_rows(self.kv, kv=(3, 2, self.n_kv_heads, self.head_dim))["kv"].weight  # of the three attentions
        k, v = Projection(kv[:, 0]), Projection(kv[:, 1])
        return {**split_rows(self.q, q=heads), "k": k, "v": v, "out": output(self.out, *heads)}

    def forward(self, x_BTD: Tensor, state: NSAState | None, ctx: Context) -> tuple[Tensor, NSAState | None]:
        q_BTHK, recent_BT2GK, chosen, window = self.project(x_BTD, ctx)
        blocks = self.compress(recent_BT2GK, None if state is None else state.recent, ctx)
        if state is not None:
            recent = state.recent.append(recent_BT2GK)
            kept = state.blocks
            if blocks.shape[1]:
                # Without room for more: a compiled step could not append to it.
                held = torch.cat([kept.entries(), blocks.to(kept.data.dtype)], dim=1)
                kept = TimeBuffer(held, held.shape[1])
            window, after = _extended(state.window, window)
            state = NSAState(recent, kept, state.chosen.append(chosen), after)
            blocks, chosen = (buffer.entries().to(chosen.dtype) for buffer in (state.blocks, state.chosen))
        (k_BMGK, v_BMGK), (k_BSGK, v_BSGK), (k_BWGK, v_BWGK) = (kv.unbind(2) for kv in (blocks, chosen, window))
        compressed_BTHK, p_BTGM = block_attention(q_BTHK, k_BMGK, v_BMGK, self.block_length, ctx.position)
        chosen_BTGN = choose_blocks(p_BTGM, self.top_blocks, self.block_length, ctx.position)
        chosen_BTHK = sparse_attention(q_BTHK, k_BSGK, v_BSGK, chosen_BTGN)
        with counted_as(4 * len(x_BTD) * ctx.T * min(self.window, ctx.T) * self.n_heads * self.head_dim):
            window_BTHK = causal_attention(q_BTHK, k_BWGK, v_BWGK, window=self.window)
        a_BTH1, b_BTH1, c_BTH1 = self.branch_gates(x_BTD)[..., None].unbind(-2)
        y_BTHK = a_BTH1 * compressed_BTHK + b_BTH1 * chosen_BTHK + c_BTH1 * window_BTHK
        return self.out(y_BTHK.flatten(2)), state

    def project(self, x_BTD: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the queries (B, T, H, K), and keys and values of the three attentions, (B, T, 2, G, K) each.

        All are rotated, except for keys that will be compressed.
        """
        table, G = ctx.rope(self.rope, self.head_dim), self.n_kv_heads
        q_BTHK = self.q(x_BTD).unflatten(-1, (self.n_heads, self.head_dim))
        kv_BT32GK = self.kv(x_BTD).unflatten(-1, (3, 2, G, self.head_dim))
        keys_BTXK = kv_BT32GK[:, :, 1:, 0].flatten(2, 3)  # X = 2 G
        rotated_BTXK = apply_rope(torch.cat([q_BTHK, keys_BTXK], dim=2), *table)
        q_BTHK, *keys = rotated_BTXK.split([self.n_heads, G, G], dim=2)
        chosen, window = (torch.stack([k, kv_BT32GK[:, :, i, 1]], dim=2) for i, k in enumerate(keys, 1))
        return q_BTHK, kv_BT32GK[:, :, 0], chosen, window

    def branch_gates(self, x_BTD: Tensor) -> Tensor:
        """Returns the factors of the compressed, the chosen and the window attention, (B, T, H, 3)."""
        return torch.sigmoid(self.gates(x_BTD)).unflatten(-1, (self.n_heads, 3))

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the weights of the attention to chosen blocks and to the window, and the gates of the three."""
        q_BTHK, recent_BT2GK, chosen, window = self.project(x_BTD, ctx)
        k_BMGK, v_BMGK = self.compress(recent_BT2GK, None, ctx).unbind(2)
        _, p_BTGM = block_attention(q_BTHK, k_BMGK, v_BMGK, self.block_length, ctx.position)
        chosen_BTGN = choose_blocks(p_BTGM, self.top_blocks, self.block_length, ctx.position)
        k_BSGK, k_BWGK = chosen[:, :, 0], window[:, :, 0]
        return {
            "attention.weights": sparse_attention(q_BTHK, k_BSGK, one_hot_values(k_BSGK), chosen_BTGN),
            "attention.window": causal_attention(q_BTHK, k_BWGK, one_hot_values(k_BWGK), window=self.window),
            "gates.branch": self.branch_gates(x_BTD),
        }

    def compress(self, kv_BT2GK: Tensor, recent: TimeBuffer | None, ctx: Context) -> Tensor:
        """Returns compressed keys and values of the blocks that the new tokens complete: (B, M, 2, G, K)."""
        C, begun = self.block_length, ctx.position % self.block_length
        if recent is not None and begun:
            kv_BT2GK = torch.cat([recent.entries()[:, -begun:].to(kv_BT2GK.dtype), kv_BT2GK], dim=1)
        M = kv_BT2GK.shape[1] // C
        if recent is not None and not M:  # most steps
            return kv_BT2GK[:, :0]
        k_BMGCK, v_BMGCK = kv_BT2GK[:, : M * C].unflatten(1, (M, C)).movedim(2, -2).unbind(2)
        cos_TR, sin_TR = ctx.rope(self.rope, self.head_dim)
        ends = slice(C - 1 - begun, None, C)  # the new tokens that complete a block
        k_BMGK = apply_rope(self.compress_k(k_BMGCK), cos_TR[ends], sin_TR[ends])
        return torch.stack([k_BMGK, self.compress_v(v_BMGCK)], dim=2)


def _extended(past: TimeBuffer, new: Tensor) -> tuple[Tensor, TimeBuffer]:
    """Returns the entries of a window that the new tokens may see, and the extended buffer."""
    after = past.append(new)
    if new.shape[1] == 1:
        return after.entries().to(new.dtype), after
    return torch.cat([past.entries().to(new.dtype), new], dim=1), after  # the first new tokens see older ones
