"""H-Net's dynamic chunking (Hwang et al. 2025, arXiv 2507.07955): a network that runs on learned chunks of the tokens.

Legend: B batch, T time, D model width, M chunks, N target of T / M.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lmzoo.layers.context import Context
from lmzoo.layers.init import constant
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import l2_normalize
from lmzoo.layers.stack import Stack
from lmzoo.losses import auxiliary_loss
from lmzoo.ops.counting import counted_as
from lmzoo.ops.dynamic_chunks import downsample, upsample
from lmzoo.ops.precision import wide_dtype
from lmzoo.ops.straight_through import straight_through
from lmzoo.state import State, leaves_of, with_leaves


class ChunksState(NamedTuple):
    """The decoding state of the layer."""

    key: Tensor  # (B, D), of the last token
    main: list[State]  # after the last chunk of each row
    smoothed: Tensor  # (B, D), the value of the last chunk, float32 or wider


class DynamicChunks(Layer):
    """`up(main(down(x))) + W x`, with x normalized: `main` runs on the tokens that begin a chunk.

    A token begins a chunk if its query is unlike the key of the token before it: if the probability
    `p = (1 - cos(q_t, k_{t-1})) / 2` is at least 1/2. The first token always does. Each token then gets the output of
    the chunk that it belongs to, smoothed over chunks. Two things exist in training alone, because they change only
    gradients: a factor of 1 whose straight-through gradient makes sure choices more likely, and the auxiliary loss
    "ratio" with the coefficient `ratio_loss`, which is smallest if one of `chunk_length` tokens begins a chunk.

    The layers of `main` need a state of fixed size and no positions, because rows have different numbers of chunks.
    """

    reach = None

    def __init__(
        self, d_model: int, before: nn.Module, main: Stack, *, chunk_length: float = 4.0, ratio_loss: float = 0.03
    ) -> None:
        super().__init__()
        self.before, self.main = before, main
        self.chunk_length, self.ratio_loss = chunk_length, ratio_loss
        self.q = Linear(d_model, d_model, bias=False, init=_identity)
        self.k = Linear(d_model, d_model, bias=False, init=_identity)
        self.direct = Linear(d_model, d_model, bias=False, init=constant(0.0))

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> ChunksState:
        """Returns the state of `main`, and zeros for the key and for the value of the last chunk."""
        key_BD = like.new_zeros(batch_size, self.q.in_features)
        smoothed_BD = key_BD.to(wide_dtype(like.dtype))
        return ChunksState(key_BD, self.main.init_state(batch_size, max_len, like), smoothed_BD)

    def calls(self, T: int) -> dict[str, tuple[float, int]]:
        """Counts runs of `main` at the ratio that the auxiliary loss aims at."""
        return {"main": (1 / self.chunk_length, max(1, round(T / self.chunk_length)))}

    def forward(self, x_BTD: Tensor, state: ChunksState | None, ctx: Context) -> tuple[Tensor, ChunksState | None]:
        key_BD, main, smoothed_BD = (None, None, None) if state is None else state
        x_BTD = self.before(x_BTD)
        p_BT, key_BD = self.route(x_BTD, key_BD, ctx)
        chosen_BT = p_BT >= 0.5
        counts_B = chosen_BT.sum(dim=1)
        M = 1 if ctx.T == 1 else max(1, int(counts_B.max()))  # a step has one shape, so that it can be compiled
        y_BMD, main = self.run_main(downsample(x_BTD, chosen_BT, M), counts_B, main, ctx)
        up_BTD, smoothed_BD = upsample(y_BMD, p_BT, chosen_BT, smoothed_BD)
        if self.training:
            self._balance(p_BT, chosen_BT)
            sure_BT1 = torch.where(chosen_BT, p_BT, 1 - p_BT)[..., None]
            up_BTD = up_BTD * straight_through(torch.ones_like(sure_BT1), sure_BT1)
        y_BTD = self.direct(x_BTD) + up_BTD.to(x_BTD.dtype)
        return y_BTD, None if main is None else ChunksState(key_BD, main, smoothed_BD)

    def route(self, x_BTD: Tensor, key_BD: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor]:
        """Returns the probabilities that tokens begin a chunk, in float32 or wider, and the last key."""
        q_BTD, k_BTD = self.q(x_BTD), self.k(x_BTD)
        key_BD = torch.zeros_like(k_BTD[:, 0]) if key_BD is None else key_BD.to(k_BTD.dtype)
        before_BTD = torch.cat([key_BD[:, None], k_BTD[:, :-1]], dim=1)
        cosine_BT = (l2_normalize(q_BTD) * l2_normalize(before_BTD)).sum(dim=-1)
        first_T = ctx.positions_T == 0
        return torch.where(first_T, 1.0, (1 - cosine_BT) / 2), k_BTD[:, -1].clone()

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the probabilities that tokens begin a chunk."""
        return {"chunks.start": self.route(self.before(x_BTD), None, ctx)[0]}

    def run_main(
        self, chunks_BMD: Tensor, counts_B: Tensor, state: list[State] | None, ctx: Context
    ) -> tuple[Tensor, list[State] | None]:
        """Returns the outputs of the chunks, (B, M, D), and the state of each row after its last chunk.

        With a state, the chunks that all rows have are read together, and the others one by one, so that no row reads
        padding.
        """
        B, M, _ = chunks_BMD.shape
        with counted_as(B * ctx.T / self.chunk_length * _flops(self.main, M)):
            if state is None:
                y_BMD, _ = self.main(chunks_BMD, None, self._inner(ctx, M))
                return y_BMD, None
            pieces = [chunks_BMD[:, :0]]
            together = 0 if ctx.T == 1 else int(counts_B.min())
            if together:
                y_BMD, state = self.main(chunks_BMD[:, :together], state, self._inner(ctx, together))
                pieces.append(y_BMD)
            for m in range(together, M):
                y_B1D, after = self.main(chunks_BMD[:, m : m + 1], state, self._inner(ctx, 1))
                state = _where(counts_B > m, after, state)
                pieces.append(y_B1D)
            return torch.cat(pieces, dim=1), state

    def _inner(self, ctx: Context, M: int) -> Context:
        """Returns the context of `main`."""
        return Context(0, M, ctx.device, ctx.dtype)

    def _balance(self, p_BT: Tensor, chosen_BT: Tensor) -> None:
        """Reports the auxiliary loss: the paper's equation 10."""
        N, F, G = self.chunk_length, chosen_BT.to(p_BT.dtype).mean(), p_BT.mean()
        auxiliary_loss("ratio", self.ratio_loss * N / (N - 1) * ((N - 1) * F * G + (1 - F) * (1 - G)))


def _where(chosen_B: Tensor, new: State, old: State) -> State:
    """Returns a state with the rows of `new` where chosen, and of `old` elsewhere."""
    pairs = zip(leaves_of(new), leaves_of(old), strict=True)
    rows = (torch.where(chosen_B.view(-1, *[1] * (n.ndim - 1)), n, o) if isinstance(n, Tensor) else n for n, o in pairs)
    return with_leaves(new, rows)


def _flops(module: nn.Module, T: int) -> float:
    """Returns the FLOPs per token that the parts of a module declare, if each runs once."""
    declared: Any = getattr(module, "flops", None)
    own = 0.0 if declared is None else declared(T)
    if isinstance(module, nn.Linear):
        own = 2.0 * module.in_features * module.out_features
    return own + sum(_flops(child, T) for child in module.children())


def _identity(w: Tensor, _: torch.Generator | None) -> None:
    nn.init.eye_(w)
