"""The config says tie_embeddings=True, but the head has its own weight.

vllm-project/vllm#51665, NVIDIA-NeMo/Automodel#2511.
"""

from __future__ import annotations

from lmzoo.layers.linear import Linear
from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "tied_weights"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.head = Linear(config.d_model, config.vocab_size, bias=False)
