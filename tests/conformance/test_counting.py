"""Tests the check that compares declared FLOPs with counted ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.conformance import check_model
from lmzoo.model import LanguageModel, ModelConfig
from lmzoo.state import State


class Filtered(LanguageModel):
    """A table of weights per position, which a map makes once per sequence, whatever the number of rows."""

    times = 1.0

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.tokens = nn.Embedding(config.vocab_size, 8)
        self.positions = nn.Parameter(torch.randn(config.context_length, 4))
        self.identity = nn.Identity()
        self.filter = nn.Linear(4, 8)
        self.head = nn.Linear(8, config.vocab_size)

    def flops(self, T: int) -> float:
        return 0.0

    def calls(self, T: int) -> dict[str, tuple[float, int]]:
        return {"filter": (self.times, T)}

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        filter_TD = self.filter(self.identity(self.positions[: idx_BT.shape[1]]))
        return self.tokens(idx_BT) * filter_TD, state


class Miscounted(Filtered):
    times = 2.0


def test_flops_check_counts_one_row() -> None:
    report = check_model(Filtered, only=["flops"])
    assert report.passed, str(report)


def test_flops_check_sees_a_wrong_number_of_calls() -> None:
    report = check_model(Miscounted, only=["flops"])
    assert report.failures == ["flops"]
    assert "calls(T)" in report.results[0].saw
