"""Checks of declared numbers: parameters, FLOPs, bytes of the state, and its growth."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from lmzoo.conformance import check_model, subject
from lmzoo.model import LanguageModel, ModelConfig, StateGrowth, Traits
from lmzoo.state import State
from tests.conformance.test_suite import Plain
from tests.museum.base import Attention, MuseumConfig, Recurrent, Transformer


def test_flops_of_a_class_that_declares_none_are_measured() -> None:
    model = subject(Plain).model()
    V = model.config.vocab_size
    assert model.flops_per_token(4) == 2 * (8 * 24 + 8 * 24 + 8 * V)  # three gates of input and state, and the head
    assert model.flops_per_token(10 * model.config.context_length) == model.flops_per_token(4)


def test_flops_names_the_declared_and_the_counted_number() -> None:
    class Half(Attention):
        def flops(self, T: int) -> float:
            return super().flops(T) / 2

    class Halved(Transformer):
        attention_class = Half

    result = check_model(Halved, only=["flops"]).results[0]
    assert result.saw.startswith("flops_per_token(3) is 8,800, torch counts 8,992 per token")
    assert "look at Block: no flops(T) declared; flops(T) of Half; calls(T) of a layer" in result.saw


def test_parameters_finds_modules_in_a_plain_dict() -> None:
    class Hides(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            self.more = {"a": torch.nn.Linear(2, 2)}

    result = check_model(Hides, only=["parameters"]).results[0]
    assert result.saw.startswith("more holds modules or parameters in a plain dict, where they are neither")


def test_declared_growth_names_the_measured_one() -> None:
    class Constant(Transformer):
        @property
        def traits(self) -> Traits:
            return replace(super().traits, state_growth="constant")

    result = check_model(Constant, only=["declared_growth"]).results[0]
    assert "state_growth='constant'" in result.saw
    assert result.saw.endswith("declare state_growth='linear'")


def test_declared_growth_tells_logarithmic_from_linear_and_constant() -> None:
    """A state of one vector for each power of two up to the length, as in a Fenwick tree."""

    class Levels(Recurrent):
        growth: ClassVar[StateGrowth] = "logarithmic"

        @property
        def traits(self) -> Traits:
            return replace(super().traits, state_growth=self.growth)

        def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
            cells = super().init_layers(batch_size, max_len, like)
            return cells, like.new_zeros(batch_size, max_len.bit_length(), self.config.d_model)

        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            cells, levels = (None, None) if state is None else state
            x_BTD, cells = super().features(idx_BT, cells)
            return x_BTD, None if state is None else (cells, levels.clone())

    def failure(growth: StateGrowth) -> str | None:
        result = check_model(type("Grows", (Levels,), {"growth": growth}), only=["declared_growth"]).results[0]
        return None if result.passed else result.saw

    assert failure("logarithmic") is None
    for wrong in ("constant", "linear"):
        assert str(failure(wrong)).endswith("'logarithmic'")


class Filtered(LanguageModel):
    """A table of weights per position, computed once for all rows of a batch."""

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


def test_flops_counts_one_row() -> None:
    report = check_model(Filtered, only=["flops"])
    assert report.passed, str(report)


def test_flops_finds_a_wrong_number_of_calls() -> None:
    report = check_model(Miscounted, only=["flops"])
    assert report.failures == ["flops"]
    assert "calls(T)" in report.results[0].saw


def test_declared_growth_counts_token_ids_of_8_bytes_where_the_base_keeps_them() -> None:
    class Says(Plain):
        @property
        def traits(self) -> Traits:
            return Traits(extrapolates=False, state_growth="constant")

    result = check_model(Says, only=["declared_growth"]).results[0]
    assert "the state takes 48 bytes for 6 tokens, 96 bytes for 12 tokens, 192 bytes for 24 tokens" in result.saw
