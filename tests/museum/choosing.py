"""A small correct transformer that attends to the keys with the highest scores, for exhibits about hard choices."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lmzoo.model import Traits
from lmzoo.ops.precision import wide
from lmzoo.ops.stable_topk import stable_topk
from tests.museum.base import Attention, Transformer

KEPT = 4  # keys of each query


class ChoosingAttention(Attention):
    """Each query attends to the `KEPT` visible keys whose first head gives the highest scores."""

    def flops(self, T: int) -> float:
        return super().flops(T) + 2.0 * T * self.config.d_model / self.config.n_heads

    def index_scores(self, q_BTHK: Tensor, k_BSHK: Tensor) -> Tensor:
        """Returns the scores (B, T, S) by which keys are chosen."""
        return torch.relu(torch.einsum("btk,bsk->bts", wide(q_BTHK[:, :, 0]), wide(k_BSHK[:, :, 0])))

    def choose(self, scores_BTS: Tensor, allowed_TS: Tensor) -> Tensor:
        """Returns the mask (B, T, S) of the chosen keys."""
        scores_BTS = scores_BTS.masked_fill(~allowed_TS, -torch.inf)
        _, chosen_BTK = stable_topk(scores_BTS, min(KEPT, scores_BTS.shape[-1]))
        return torch.zeros_like(scores_BTS, dtype=torch.bool).scatter(2, chosen_BTK, True) & allowed_TS

    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        kept_BTS = self.choose(self.index_scores(q_BTHK, k_BSHK), allowed_TS)
        return super().attend(q_BTHK, k_BSHK, v_BSHK, kept_BTS[:, None])


class Choosing(Transformer):
    """A transformer that declares that it chooses."""

    attention_class = ChoosingAttention

    @property
    def traits(self) -> Traits:
        return replace(super().traits, chooses=True)
