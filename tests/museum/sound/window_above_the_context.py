"""A window of 40 tokens that is not a setting: longer than the context of a small model.

Ours: the declared reach of two layers is 79 tokens. Similar to Mistral (Jiang et al. 2023, arXiv 2310.06825), whose
window is longer than most texts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmzoo.model import Traits
from lmzoo.state import TimeBuffer
from tests.museum.base import Attention, Transformer

WINDOW = 40


class WideAttention(Attention):
    def init_state(self, B: int, max_len: int, like: Tensor) -> Any:
        H, K = self.config.n_heads, self.config.d_model // self.config.n_heads
        options = {"window": self.config.window or WINDOW, "device": like.device, "dtype": like.dtype}
        return [TimeBuffer.empty(B, max_len, H, K, **options) for _ in "kv"]

    def mask(self, T: int, S: int) -> Tensor:
        place_S = torch.arange(S, device=self.out.weight.device)
        behind_TS = place_S[S - T :, None] - place_S
        return (behind_TS >= 0) & (behind_TS < (self.config.window or WINDOW))


class MODEL(Transformer):
    attention_class = WideAttention

    @property
    def traits(self) -> Traits:
        reach = self.config.n_layers * ((self.config.window or WINDOW) - 1) + 1
        return Traits(extrapolates=True, receptive_field=reach, state_growth="constant")
