"""Checks of the large form; exhibits with faults beyond the tiny sizes are in tests/museum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import Fault, check_model, subject
from lmzoo.conformance.long import _directional_error, require_reach
from lmzoo.state import State
from tests.museum.base import Attention, MuseumConfig, Recurrent, Transformer


class Windowed(Transformer):
    """A transformer whose receptive field is 9 tokens, but which may declare another one."""

    declared: int | None = 9

    @property
    def traits(self) -> Any:
        return super().traits.__class__(extrapolates=True, receptive_field=self.declared)


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        (9, ""),
        (8, "reaches 8 tokens back, though the model declares receptive_field=8"),
        (10, "do not depend on the tokens 9 to 9 back, though the model declares receptive_field=10"),
        (None, "do not depend on the tokens 16 to 31 back, though the model declares no receptive_field"),
    ],
)
def test_require_reach_holds_the_declaration_both_ways(
    declared: int | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Windowed, "declared", declared)
    model = Windowed(MuseumConfig(vocab_size=13, window=5)).double()
    idx = torch.arange(40).view(1, 40) % 13
    if says:
        with pytest.raises(Fault, match=says):
            require_reach(model, idx)
    else:
        assert require_reach(model, idx) == "gradients reach 9 tokens back, and no further"


class Detached(Recurrent):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return torch.cat([x_BTD[:, :20].detach(), x_BTD[:, 20:]], dim=1), state


def test_directional_error_finds_a_detached_part() -> None:
    for cls, is_right in ((Recurrent, True), (Detached, False)):
        checked = subject(cls)
        model, idx = checked.model().double(), checked.tokens(2, 30)
        if is_right:
            assert _directional_error(model, idx, idx) < 1e-6
        else:
            with pytest.raises(Fault, match="the gradient along a random direction"):
                _directional_error(model, idx, idx)


class LeaksForRow8(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        y_BTD = super().attend(q_BTHK, k_BSHK, v_BSHK, allowed_TS)
        return torch.cat([y_BTD[:8], y_BTD[8:] + v_BSHK[8:].mean()])


class NineRows(Transformer):
    attention_class = LeaksForRow8


def test_long_causality_looks_at_nine_rows() -> None:
    assert check_model(NineRows, only=["long_causality"]).failures == ["long_causality"]
    assert check_model(Transformer, only=["long_causality"]).passed


def test_random_shapes_prints_the_seed_and_follows_it() -> None:
    first, second, again = (check_model("bigram", only=["random_shapes"], seed=seed).results[0] for seed in (0, 1, 0))
    assert first.saw == again.saw != second.saw
    assert "(seed 1)" in second.saw
