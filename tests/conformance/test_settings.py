"""Checks that every setting has an effect, and that models do not affect each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

from lmzoo.conformance import check_model
from lmzoo.conformance.settings import _Effects
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Learned, MuseumConfig, Recurrent


@dataclass(frozen=True, kw_only=True)
class SwitchConfig(CellConfig):
    without_effect: ClassVar[frozenset[str]] = frozenset()

    mode: Literal["plain", "scaled"] = "plain"
    scale: float = 2.0  # matters only if mode="scaled"
    dropout: float = 0.0
    chunk: int = 8  # matters to speed alone


class Switched(Recurrent):
    config_class = SwitchConfig
    config: SwitchConfig

    def __init__(self, config: SwitchConfig) -> None:
        super().__init__(config)
        self.drop = nn.Dropout(config.dropout)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return self.drop(x_BTD) * (self.config.scale if self.config.mode == "scaled" else 1.0), state


def test_settings_finds_one_without_effect_unless_it_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    (result,) = check_model(Switched, only=["settings"]).results
    assert result.saw.startswith("chunk changes nothing: parameters, initial weights")
    monkeypatch.setattr(SwitchConfig, "without_effect", frozenset({"chunk"}))
    assert check_model(Switched, only=["settings"]).passed
    for declared, says in (("scale", "without_effect names scale, which has an effect"), ("x", "is no setting of")):
        monkeypatch.setattr(SwitchConfig, "without_effect", frozenset({"chunk", declared}))
        (result,) = check_model(Switched, only=["settings"]).results
        assert says in result.saw


@dataclass(frozen=True, kw_only=True)
class ReservingConfig(CellConfig):
    reserve: int = 1  # the state has room for so many tokens, or for more if there are more


class Reserving(Recurrent):
    config_class = ReservingConfig
    config: ReservingConfig

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        pieces = super().init_layers(batch_size, max_len, like)
        room = like.new_zeros(batch_size, max(max_len, self.config.reserve))
        return [*pieces, room] if max_len > 0 else pieces  # without a state, `features` asks for one of length 0


def test_effects_differ_by_the_state_after_one_token_alone() -> None:
    effects, same, other = (_Effects(Reserving, ReservingConfig(vocab_size=13, reserve=n)) for n in (1, 1, 2))
    assert not effects.differ(same)
    assert effects.differ(other)


@dataclass(frozen=True, kw_only=True)
class CountingConfig(CellConfig):
    weight: float = 1.0


class Counting(Recurrent):
    config_class = CountingConfig
    config: CountingConfig

    def extra_losses(self, x_BTD: Tensor, idx: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"other tokens": self.config.weight * (targets != idx).double().mean()}


def test_effects_differ_by_a_loss_that_compares_tokens_and_targets() -> None:
    effects, other = (_Effects(Counting, CountingConfig(vocab_size=13, weight=weight)) for weight in (1.0, 2.0))
    assert effects.differ(other)


def test_effects_are_found_in_a_short_context() -> None:
    effects = _Effects(Learned, MuseumConfig(vocab_size=13, context_length=3))
    assert effects.value("logits")["logits"].shape == (2, 3, 13)


@dataclass(frozen=True, kw_only=True)
class LateConfig(CellConfig):
    growth: float = 0.5  # of features from position 40 on


class Late(Recurrent):
    config_class = LateConfig
    config: LateConfig
    first: ClassVar[int] = 40

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return {"position": 0, "cells": super().init_layers(batch_size, max_len, like)}

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        position, T = 0 if state is None else state["position"], idx_BT.shape[1]
        given = super().init_layers(len(idx_BT), 0, self.tokens(idx_BT)) if state is None else state["cells"]
        x_BTD, cells = super().features(idx_BT, given)
        late_T1 = torch.arange(position, position + T)[:, None] >= self.first
        x_BTD = x_BTD * (1 + self.config.growth * late_T1)
        return x_BTD, None if state is None else {"position": position + T, "cells": cells}


def test_settings_finds_an_effect_that_begins_past_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_model(Late, only=["settings"]).passed
    monkeypatch.setattr(Late, "first", 1000)
    assert "growth changes nothing" in check_model(Late, only=["settings"]).results[0].saw


class RemembersTheLast(Cell):
    width: ClassVar[int] = 0

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        type(self).width = config.d_model

    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        return super().scan(f_BTD, c_BTD / self.width, h_BD)


class Shared(Recurrent):
    cell_class = RemembersTheLast


def test_other_models_finds_an_attribute_of_the_class() -> None:
    (result,) = check_model(Shared, only=["other_models"]).results
    assert result.saw.startswith("a model, after one with d_model=32 was used, is off by")


_tables: dict[int, Tensor] = {}


class Cached(Switched):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        T = idx_BT.shape[1]
        if T not in _tables:  # the key lacks the scale
            _tables[T] = torch.tensor(self.config.scale)
        return x_BTD * _tables[T], state


def test_other_models_finds_a_table_with_an_incomplete_key() -> None:
    _tables.clear()
    (result,) = check_model(Cached, only=["other_models"]).results
    assert "at a length that another model has used is off by" in result.saw


def test_other_models_passes_a_sound_model() -> None:
    result: Any = check_model(Switched, only=["other_models"]).results[0]
    assert result.passed, result.saw
    assert result.saw == "the same logits after 8 models of other settings"
