"""A loop runs over the experts that at least one token has chosen, so the number of its steps depends on the tokens.

Switch Transformer (Fedus et al. 2021, arXiv 2101.03961); similar to huggingface/transformers#38518 (such a loop, which
cannot be captured in one graph).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lmzoo.model import Traits
from tests.museum.base import Recurrent
from tests.museum.sound.experts_with_their_own_rows import RoutedCell


class ChosenCell(RoutedCell):
    def route(self, x_ND: Tensor) -> Tensor:
        weight_N, chosen_N = self.router(x_ND).softmax(-1).max(-1)
        y_ND = torch.zeros_like(x_ND)
        for e in chosen_N.unique().tolist():
            rows = (chosen_N == e).nonzero().squeeze(-1)
            y_ND = y_ND.index_add(0, rows, (weight_N[rows, None] * self.experts[e](x_ND[rows])).to(y_ND.dtype))
        return y_ND


class MODEL(Recurrent):
    cell_class = ChosenCell

    @property
    def traits(self) -> Traits:
        return replace(super().traits, data_dependent_shapes=True)
