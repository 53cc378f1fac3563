"""Loading replaces the head's weight: it is tied before and a separate matrix after.

NVIDIA-NeMo/Automodel#2511, huggingface/accelerate#1204.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lmzoo.layers.linear import Linear
from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "tied_weights"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.head = Linear(config.d_model, config.vocab_size, bias=False)
        self.head.weight = self.tokens.weight

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        loaded = super().load_state_dict(state_dict, strict=strict, assign=assign)
        self.head.weight = nn.Parameter(self.tokens.weight.detach().clone())
        return loaded
