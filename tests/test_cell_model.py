"""The frame of recurrent networks: where dropout is, and what a subclass has to give."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lmzoo.cell_model import CellConfig, CellModel
from lmzoo.errors import ConfigError
from lmzoo.layers.rnn import RNN


class Cells(CellModel):
    def make_cells(self, config: Any) -> RNN:
        return RNN(config.d_model)


def test_cell_model_is_a_chain_of_embedding_cells_and_head() -> None:
    model = Cells(CellConfig(vocab_size=7, d_model=5, n_layers=2)).eval()
    idx = torch.randint(7, (2, 6), generator=torch.Generator().manual_seed(0))
    x = model.tokens.weight[idx]
    for block in model.blocks:
        h, outputs = torch.zeros(2, 5), []
        for t in range(6):
            cells = block[0]
            h = torch.tanh(x[:, t] @ cells.weight_ih.T + h @ cells.weight_hh.T + cells.bias)
            outputs.append(h)
        x = torch.stack(outputs, dim=1)
    torch.testing.assert_close(model(idx).logits, x @ model.head.weight.T)


def test_cell_model_drops_features_before_between_and_after_the_layers_in_training() -> None:
    model = Cells(CellConfig(vocab_size=7, d_model=64, n_layers=2, dropout=0.5)).train()
    zeros: list[float] = []
    for module in (model.dropout, *(block[1] for block in model.blocks)):
        module.register_forward_hook(lambda _, __, out: zeros.append((out == 0).float().mean().item()))
    model(torch.arange(7).expand(4, 7))
    assert len(zeros) == 3
    assert all(0.4 < share < 0.6 for share in zeros)


def test_cell_config_refuses_a_dropout_of_one() -> None:
    with pytest.raises(ConfigError, match="dropout=1"):
        CellConfig(vocab_size=7, dropout=1.0)
