"""The head bends its logits, but says that it is linear, so a copy for decoding replaces it and loses the cap.

NVIDIA-NeMo/Megatron-Bridge#4645, similar to unslothai/unsloth-zoo#930 (heads replaced by their weight).
"""

from __future__ import annotations

from tests.museum.base import CellConfig, Recurrent
from tests.museum.sound.soft_cap_in_the_head import CappedHead

CAUGHT_BY = "decoding_copies"


class ClaimingHead(CappedHead):
    is_linear = True
    cap = 1.0


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.head = ClaimingHead(config.d_model, config.vocab_size, bias=False)
