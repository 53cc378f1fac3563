"""Small correct models, from which each exhibit differs in a few lines.

A transformer with rotary positions, one with learned positions, and a recurrent model with a short convolution. Each
is divided into the methods that contain bugs in practice, so that an exhibit overrides one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.head import make_head
from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding, Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.ops.rope import apply_rope, rope_table
from lmzoo.state import State, TimeBuffer


@dataclass(frozen=True, kw_only=True)
class CellConfig(ModelConfig):
    d_model: int = 16
    n_layers: int = 2


@dataclass(frozen=True, kw_only=True)
class MuseumConfig(CellConfig):
    n_heads: int = 2
    window: int | None = None
    tie_embeddings: bool = False


class Attention(nn.Module):
    """Causal attention over a cache, rotary positions, optionally a sliding window (the present token included)."""

    rotary: ClassVar[bool] = True

    def __init__(self, config: MuseumConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.qkv = Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out = Linear(config.d_model, config.d_model, bias=False)

    def flops(self, T: int) -> float:
        return 4.0 * T * self.config.d_model

    def init_state(self, B: int, max_len: int, like: Tensor) -> Any:
        H, K = self.config.n_heads, self.config.d_model // self.config.n_heads
        options = {"window": self.config.window, "device": like.device, "dtype": like.dtype}
        return [TimeBuffer.empty(B, max_len, H, K, **options) for _ in "kv"]

    def positions(self, position: int, T: int, cache: Any) -> int:
        """Returns the position of the first of T new tokens."""
        return position

    def mask(self, T: int, S: int) -> Tensor:
        """Returns the mask (T, S): True where one of the T newest tokens may attend to one of S."""
        place_S = torch.arange(S, device=self.out.weight.device)
        behind_TS = place_S[S - T :, None] - place_S
        window = self.config.window
        return behind_TS >= 0 if window is None else (behind_TS >= 0) & (behind_TS < window)

    def remember(self, cache: Any, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Returns the keys and values that the new tokens may attend to, and the next cache."""
        after = [old.append(new) for old, new in zip(cache, (k, v), strict=True)]
        k, v = (torch.cat([old.entries(), new], dim=1) for old, new in zip(cache, (k, v), strict=True))
        return k, v, after

    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        q_BHTK, k_BHSK, v_BHSK = (x.transpose(1, 2) for x in (q_BTHK, k_BSHK, v_BSHK))
        return self.merge(F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, attn_mask=allowed_TS))

    def merge(self, y_BHTK: Tensor) -> Tensor:
        """Concatenates the heads: (B, T, D)."""
        return y_BHTK.transpose(1, 2).flatten(2)

    def forward(self, x_BTD: Tensor, cache: Any, position: int) -> tuple[Tensor, Any]:
        B, T, D = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(B, T, 3, self.config.n_heads, D // self.config.n_heads).unbind(2)
        if self.rotary:
            start = self.positions(position, T, cache)
            table = rope_table(start, T, D // self.config.n_heads, 10000.0, device=x_BTD.device, dtype=torch.float64)
            q, k = apply_rope(q, *table), apply_rope(k, *table)
        if cache is not None:
            k, v, cache = self.remember(cache, k, v)
        return self.out(self.attend(q, k, v, self.mask(T, k.shape[1]))), cache


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: MuseumConfig, attention: nn.Module) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = RMSNorm(config.d_model), RMSNorm(config.d_model)
        self.attention = attention
        self.up, self.down = Linear(config.d_model, 32), Linear(32, config.d_model)

    def forward(self, x_BTD: Tensor, cache: Any, position: int) -> tuple[Tensor, Any]:
        y_BTD, cache = self.attention(self.norm_1(x_BTD), cache, position)
        x_BTD = x_BTD + y_BTD
        return x_BTD + self.down(F.silu(self.up(self.norm_2(x_BTD)))), cache


class Transformer(LanguageModel):
    """A transformer with rotary positions, which extrapolates."""

    config_class = MuseumConfig
    config: MuseumConfig
    attention_class: ClassVar[type[Attention]] = Attention

    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config, self.attention_class(config, i)) for i in range(config.n_layers))
        self.norm = RMSNorm(config.d_model)
        self.head = make_head(self.tokens, tied=config.tie_embeddings)

    @property
    def traits(self) -> Traits:
        window = self.config.window
        reach = None if window is None else self.config.n_layers * (window - 1) + 1
        growth = "linear" if window is None else "constant"
        return Traits(extrapolates=True, receptive_field=reach, state_growth=growth)

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        blocks: Iterable[Any] = self.blocks
        return {"position": 0, "caches": [b.attention.init_state(batch_size, max_len, like) for b in blocks]}

    def embed(self, idx_BT: Tensor, position: int, state: State) -> Tensor:
        return self.tokens(idx_BT)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        position = 0 if state is None else state["position"]
        x_BTD = self.embed(idx_BT, position, state)
        after: list[Any] = []
        for i, block in enumerate(self.blocks):
            x_BTD, cache = block(x_BTD, None if state is None else state["caches"][i], position)
            after.append(cache)
        new = None if state is None else {"position": position + idx_BT.shape[1], "caches": after}
        return self.norm(x_BTD), new


class PositionlessAttention(Attention):
    rotary = False


class Learned(Transformer):
    """A transformer with learned positions, which sees at most the last `context_length` tokens."""

    attention_class = PositionlessAttention

    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.position_table = Embedding(config.context_length, config.d_model)

    @property
    def traits(self) -> Traits:
        window = self.config.window
        reach = None if window is None else self.config.n_layers * (window - 1) + 1
        growth = "linear" if window is None else "constant"
        return Traits(receptive_field=reach, state_growth=growth)

    def positions_of(self, position: int, T: int, state: State) -> Tensor:
        """Returns the positions of T tokens, of which the first is at `position`."""
        return torch.arange(position, position + T, device=self.device)

    def embed(self, idx_BT: Tensor, position: int, state: State) -> Tensor:
        return self.tokens(idx_BT) + self.position_table(self.positions_of(position, idx_BT.shape[1], state))


class Cell(nn.Module):
    """A convolution over three tokens, then a gated recurrence: h = f h + (1 - f) c."""

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.taps_WD = nn.Parameter(torch.empty(3, config.d_model))
        self.gates = Linear(config.d_model, 2 * config.d_model)
        self.out = Linear(config.d_model, config.d_model, bias=False)

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.taps_WD, std=0.5, generator=generator)

    def init_state(self, B: int, like: Tensor) -> State:
        D = self.taps_WD.shape[1]
        return {"tail": like.new_zeros(B, 2, D), "h": like.new_zeros(B, D)}

    def convolve(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        T = x_BTD.shape[1]
        padded_BTD = torch.cat([tail_BWD, x_BTD], dim=1)
        y_BTD = torch.stack([padded_BTD[:, w : w + T] * self.taps_WD[w] for w in range(3)]).sum(0)
        return y_BTD, padded_BTD[:, T:].clone()

    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Returns h at each position and the last h, in log2(T) rounds.

        Each round combines a position with the one `n` before it. A loop over T would take most of the time of a check.
        """
        dtype = torch.promote_types(f_BTD.dtype, h_BD.dtype)
        a_BTD, b_BTD = f_BTD.to(dtype), ((1 - f_BTD) * c_BTD).to(dtype)
        b_BTD = torch.cat([b_BTD[:, :1] + a_BTD[:, :1] * h_BD[:, None], b_BTD[:, 1:]], dim=1)
        n = 1
        while n < f_BTD.shape[1]:
            b_BTD = torch.cat([b_BTD[:, :n], b_BTD[:, n:] + a_BTD[:, n:] * b_BTD[:, :-n]], dim=1)
            a_BTD = torch.cat([a_BTD[:, :n], a_BTD[:, n:] * a_BTD[:, :-n]], dim=1)
            n *= 2
        return b_BTD, b_BTD[:, -1].clone()

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, tail = self.convolve(self.norm(x_BTD), state["tail"])
        f_BTD, c_BTD = self.gates(y_BTD).chunk(2, dim=-1)
        y_BTD, h = self.scan(torch.sigmoid(f_BTD), torch.tanh(c_BTD), state["h"])
        return x_BTD + self.out(y_BTD), {"tail": tail, "h": h}


class Recurrent(LanguageModel):
    """A recurrent model; its state has a fixed size: the tail of a convolution, and a vector."""

    config_class = CellConfig
    config: CellConfig
    cell_class: ClassVar[type[nn.Module]] = Cell
    tokens: nn.Module
    norm: nn.Module

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.d_model, init=normal(0.1))
        self.cells = nn.ModuleList(self.cell_class(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.d_model)
        self.head = Linear(config.d_model, config.vocab_size, bias=False)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, state_growth="constant")

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        cells: Iterable[Any] = self.cells
        return [cell.init_state(batch_size, like) for cell in cells]

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD = self.tokens(idx_BT)
        given = self.init_layers(idx_BT.shape[0], 0, x_BTD) if state is None else state
        after = []
        for cell, piece in zip(self.cells, given, strict=True):
            x_BTD, piece = cell(x_BTD, piece)
            after.append(piece)
        return self.norm(x_BTD), None if state is None else after
