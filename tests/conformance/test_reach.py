"""Checks of the reach of gradients, and of the gradient of all parameters together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import Fault, subject
from lmzoo.conformance.reach import _values_depend, directional_error, require_no_fixed_reach, require_reach
from lmzoo.state import State
from tests.museum.base import CellConfig, MuseumConfig, Recurrent, Transformer


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


class SeesFar(Windowed):
    """At even positions also the token 20 back matters."""

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        far_BTD = torch.nn.functional.pad(self.tokens(idx_BT), (0, 0, 20, 0))[:, :-20]
        even_T = torch.arange(idx_BT.shape[1]) % 2 == 0
        return x_BTD + far_BTD * even_T[:, None], state


def test_require_reach_finds_a_leak_at_some_positions_alone() -> None:
    model = SeesFar(MuseumConfig(vocab_size=13, window=5)).double()
    with pytest.raises(Fault, match="reaches 20 tokens back, though the model declares receptive_field=9"):
        require_reach(model, torch.arange(120).view(3, 40) % 13)


class SeesRounding(Windowed):
    """Tokens 20 and more back have gradients as small as rounding of float64."""

    def embed(self, idx_BT: Tensor, position: int, state: State) -> Tensor:
        x_BTD = super().embed(idx_BT, position, state)
        return x_BTD + 1e-14 * torch.nn.functional.pad(x_BTD, (0, 0, 20, 0))[:, :-20]


def test_require_reach_takes_no_gradient_of_the_size_of_rounding_for_a_leak() -> None:
    model = SeesRounding(MuseumConfig(vocab_size=13, window=5)).double()
    assert require_reach(model, torch.arange(40).view(1, 40) % 13) == "gradients reach 9 tokens back, and no further"


class SeesFarFromBlocks(Windowed):
    """At each sixteenth position also the token 12 back matters."""

    declared = 13

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        far_BTD = torch.nn.functional.pad(self.tokens(idx_BT), (0, 0, 12, 0))[:, :-12]
        begins_T = torch.arange(idx_BT.shape[1]) % 16 == 0
        return x_BTD + far_BTD * begins_T[:, None], state


def test_require_reach_takes_a_farthest_token_that_matters_at_an_earlier_position() -> None:
    model = SeesFarFromBlocks(MuseumConfig(vocab_size=13, window=5)).double()
    assert require_reach(model, torch.arange(40).view(1, 40) % 13) == "gradients reach 13 tokens back, and no further"


@pytest.mark.parametrize(("declared", "passes"), [(37, False), (38, True)])
def test_require_reach_asks_for_the_farthest_token_only_if_all_rows_reach_so_far(
    declared: int, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 40 tokens the last three positions, one for each row, all have 37 tokens up to their own."""
    monkeypatch.setattr(Windowed, "declared", declared)
    model, idx = Windowed(MuseumConfig(vocab_size=13, window=18)).double(), torch.arange(120).view(3, 40) % 13
    if passes:  # though the model sees 35 tokens
        assert require_reach(model, idx).startswith(f"gradients reach {declared} tokens back")
    else:
        with pytest.raises(Fault, match=f"do not depend on the tokens {declared - 1} to {declared - 1} back"):
            require_reach(model, idx)


class StraightThrough(Windowed):
    """A gradient reaches 20 tokens back; a change of that token changes no value."""

    declared = 21

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        far_BTD = torch.nn.functional.pad(self.tokens(idx_BT), (0, 0, 20, 0))[:, :-20]
        return x_BTD + (far_BTD - far_BTD.detach()), state


def test_require_reach_takes_a_gradient_whose_effect_is_below_rounding() -> None:
    model = StraightThrough(MuseumConfig(vocab_size=13, window=5)).double()
    assert require_reach(model, torch.arange(120).view(3, 40) % 13) == "gradients reach 21 tokens back, and no further"


def test_values_depend_if_one_logit_does() -> None:
    """A model that looks up a token, without a gradient, may raise the logit of one token alone."""

    class CopiesTheFirst(Recurrent):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            first_BV = torch.nn.functional.one_hot(idx_BT[:, 0], self.config.vocab_size).double()
            return first_BV[:, None].expand(-1, idx_BT.shape[1], -1), state

    model = CopiesTheFirst(CellConfig(vocab_size=13))
    model.head = torch.nn.Identity()
    idx = torch.arange(1, 9)[None]
    assert _values_depend(model, idx, range(7, 8))
    assert not _values_depend(model, idx, range(6))


class Detached(Recurrent):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return torch.cat([x_BTD[:, :20].detach(), x_BTD[:, 20:]], dim=1), state


class Kinked(Recurrent):
    """A parameter at which the slope changes two millionths above its value: the longer of the two steps crosses it."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.level = torch.nn.Parameter(torch.ones(1))

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return x_BTD + 1000 * torch.relu(self.level - 1 - 2e-6), state


def test_directional_error_allows_a_kink_within_the_longer_step() -> None:
    checked = subject(Kinked)
    model, idx = checked.model(perturbed=False).double(), checked.tokens(2, 30)
    assert directional_error(model, idx, idx) < 1e-6


def test_directional_error_finds_a_detached_part() -> None:
    for cls, is_right in ((Recurrent, True), (Detached, False)):
        checked = subject(cls)
        model, idx = checked.model().double(), checked.tokens(2, 30)
        if is_right:
            assert directional_error(model, idx, idx) < 1e-6
        else:
            with pytest.raises(Fault, match="the gradient along a random direction"):
                directional_error(model, idx, idx)


class Sharp(Recurrent):
    """Multiplies the features by a wave that only a very short step of a weight resolves, as very large scores do."""

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.phase = torch.nn.Parameter(torch.tensor([0.1]))

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return x_BTD * (1 + torch.sin(1e7 * self.phase)), state


def test_directional_error_finds_the_step_that_resolves_sharp_values(monkeypatch: pytest.MonkeyPatch) -> None:
    model = subject(Sharp).model().double()
    idx = torch.arange(20).view(2, 10) % 13
    assert directional_error(model, idx, idx) < 1e-3
    monkeypatch.setattr("lmzoo.conformance.reach.STEPS", (1e-5, 1e-6, 1e-7))
    with pytest.raises(Fault, match="the gradient along a random direction"):
        directional_error(model, idx, idx)


class Averaged(Recurrent):
    """Averages the last `REACH` embeddings; the state plays no part."""

    REACH = 20

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        e_BTD = torch.nn.functional.pad(self.tokens(idx_BT), (0, 0, self.REACH - 1, 0))
        return 0 * x_BTD + e_BTD.unfold(1, self.REACH, 1).mean(-1), state


class AveragedAndCounted(Averaged):
    """Also counts all tokens, by rounded numbers, through which no gradient passes."""

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return x_BTD + (idx_BT.cumsum(1) % 7)[..., None], state


class AveragedByText(Averaged):
    """Has a reach that depends on the text."""

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return torch.where(idx_BT[:, :1, None] % 2 == 0, x_BTD.roll(9, 1), x_BTD), state


@pytest.mark.parametrize(
    ("cls", "least", "is_fixed"),
    [
        (Averaged, 12, True),
        (Averaged, 20, False),
        (AveragedAndCounted, 12, False),
        (AveragedByText, 12, False),
        (Recurrent, 12, False),
        (Transformer, 12, False),
    ],
)
def test_require_no_fixed_reach_finds_a_reach_that_ends_at_once(cls: Any, least: int, is_fixed: bool) -> None:
    checked = subject(cls)
    texts = [checked.tokens(5, T) for T in (90, 101)]
    model = checked.model().double()
    if not is_fixed:
        require_no_fixed_reach(model, texts, least)
        return
    with pytest.raises(Fault, match="logits depend on 20 tokens, the present one included, in texts of 90 and 101"):
        require_no_fixed_reach(model, texts, least)
