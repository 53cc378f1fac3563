"""The scores by which keys are chosen are rounded away in bfloat16, where the model attends to arbitrary keys.

Ours: with the choices of float32 its logits would be right, so the choices themselves must be compared.
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.choosing import Choosing, ChoosingAttention

CAUGHT_BY = "long_precision"


class RoundedAttention(ChoosingAttention):
    def index_scores(self, q_BTHK: Tensor, k_BSHK: Tensor) -> Tensor:
        scores_BTS = super().index_scores(q_BTHK, k_BSHK)
        return scores_BTS.to(q_BTHK.dtype) + 4096.0


class MODEL(Choosing):
    attention_class = RoundedAttention
