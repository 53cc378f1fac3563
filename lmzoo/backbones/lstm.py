"""The LSTM language model (Hochreiter & Schmidhuber 1997; Zaremba, Sutskever & Vinyals 2014, arXiv 1409.2329).

Layers of LSTM cells over token embeddings, with dropout on the connections between layers and never on those through
time (Zaremba et al.). Distinctive: all it knows of the past is one vector pair per layer, (h, c), whatever the length.
Weights begin uniform in ±1/sqrt(d_model) as in torch, the forget gate's bias at one (Jozefowicz, Zaremba & Sutskever
2015). Deviation: one bias per gate where torch.nn.LSTM keeps two and adds them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.configs import require_between, require_positive
from lmzoo.layers.dropout import Dropout
from lmzoo.layers.linear import Embedding, Linear
from lmzoo.layers.stack import Stack
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.ops.lstm import lstm_scan
from lmzoo.registry import register_model
from lmzoo.state import State


@dataclass(frozen=True, kw_only=True)
class LSTMConfig(ModelConfig):
    """The LSTM's sizes; `ModelConfig` has the rest."""

    d_model: int = 128  # of the embeddings, and the hidden width of every layer
    n_layers: int = 2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "d_model", "n_layers")
        require_between(self, "dropout", 0, 1, below_high=True)


class LSTMState(NamedTuple):
    """What a layer hands to its next step, (B, D) each, float32 or wider."""

    h: Tensor
    c: Tensor


class LSTMLayer(nn.Module):
    """One layer of cells. The rows of the weights are the gates i, f, g, o, `d_model` each, as in torch.nn.LSTM."""

    def __init__(self, d_model: int, dropout: float) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * d_model, d_model))
        self.weight_hh = nn.Parameter(torch.empty(4 * d_model, d_model))
        self.bias = nn.Parameter(torch.empty(4 * d_model))
        self.dropout = Dropout(dropout)
        self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the parameters anew, by `generator` or by the global random state."""
        d_model = self.weight_hh.shape[1]
        bound = 1 / math.sqrt(d_model)
        for parameter in (self.weight_ih, self.weight_hh, self.bias):
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        nn.init.ones_(self.bias[d_model : 2 * d_model])  # forget nothing until there is a reason to

    def empty_state(
        self, batch_size: int, max_len: int, *, device: torch.device | None, dtype: torch.dtype | None
    ) -> LSTMState:
        """Its piece of the decoding state before the first token."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        zeros_BD = torch.zeros(batch_size, self.weight_hh.shape[1], device=device, dtype=wide)
        return LSTMState(zeros_BD, zeros_BD.clone())

    def flops(self, T: int) -> float:
        """FLOPs of one token, in a sequence of T."""
        return 2.0 * (self.weight_ih.numel() + self.weight_hh.numel())

    def forward(self, x_BTD: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState | None]:
        """(B, T, D) and (h, c) to (B, T, H) and the next (h, c)."""
        y_BTD, (h_BD, c_BD) = lstm_scan(F.linear(x_BTD, self.weight_ih, self.bias), self.weight_hh, state)
        return self.dropout(y_BTD), None if state is None else LSTMState(h_BD, c_BD)


@register_model("lstm")
class LSTM(LanguageModel):
    """Token embeddings, `n_layers` layers of cells, a head; dropout before, between and after the layers."""

    config_class = LSTMConfig
    config: LSTMConfig

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.d_model, std=1.0)
        self.dropout = Dropout(config.dropout)
        self.layers = Stack(LSTMLayer(config.d_model, config.dropout) for _ in range(config.n_layers))
        self.head = Linear(config.d_model, config.vocab_size, std=1 / math.sqrt(config.d_model))

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, state_growth="constant")

    def empty_state(
        self, batch_size: int, max_len: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return self.layers.empty_state(batch_size, max_len, device=device, dtype=dtype)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        return self.layers(self.dropout(self.tokens(idx_BT)), state)
