"""Checks of the large form; exhibits with faults beyond the tiny sizes are in tests/museum."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import Fault, check_model, long
from lmzoo.conformance.long import EXCUSED, FLAT, _require_flat
from lmzoo.model import LanguageModel
from tests.museum.base import Attention, Transformer
from tests.museum.exhibits import positions_in_the_models_dtype
from tests.museum.sound import other_positions_past_a_length


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


def test_random_shapes_draws_more_shapes_in_a_thorough_check() -> None:
    for thorough, shapes, longest in ((False, 4, 2100), (True, 40, 4200)):
        saw = check_model("bigram", only=["random_shapes"], thorough=thorough).results[0].saw
        drawn = saw.partition(" (seed")[0].split(", ")
        assert len(drawn) == shapes + 1
        assert drawn[-1] == f"1 x {longest}"


def test_require_flat_compares_late_with_early_positions() -> None:
    expected_BTV = torch.ones(1, 300, 3, dtype=torch.float64)
    late_T = (torch.arange(300) >= 200).double()[:, None]

    def require(off: float, unavoidable: float) -> None:
        actual_BTV = expected_BTV + off * FLAT * late_T
        _require_flat(actual_BTV, expected_BTV, "a", "b", lambda: expected_BTV + unavoidable * FLAT * late_T)

    require(0.9, 0.0)
    with pytest.raises(Fault, match=r"^a is off by .* at the last positions and by 0 at the first; look at b"):
        require(1.1, 0.0)


def test_require_flat_excuses_what_rounded_linear_maps_alone_cause() -> None:
    expected_BTV = torch.ones(1, 300, 3, dtype=torch.float64)

    def require(off: float, unavoidable: float, late_from: int = 0) -> None:
        late_T = (torch.arange(300) >= late_from).double()[:, None]
        rounded_BTV = expected_BTV + unavoidable * late_T
        _require_flat(expected_BTV + off * late_T, expected_BTV, "a", "b", lambda: rounded_BTV)

    for late_from in (0, 100):
        require(1.4 * EXCUSED, 1.5, late_from)
        with pytest.raises(Fault, match=r"^a is off by"):
            require(1.6 * EXCUSED, 1.5, late_from)
    with pytest.raises(Fault, match=r"^a is not finite"):
        require(float("nan"), 1e9)


def test_long_decoding_passes_a_sound_model() -> None:
    result = check_model(Transformer, only=["long_decoding"]).results[0]
    assert result.passed, result.saw


def test_long_precision_names_angles_in_sixteen_bits() -> None:
    report = check_model(positions_in_the_models_dtype.MODEL, only=["long_precision"])
    assert re.search(r"the cos of an angle of 6\d\d is taken in torch.bfloat16", str(report))


@pytest.mark.parametrize(
    ("model", "offs"),
    [
        ("bigram", (0.03, 0.01, 0.02)),
        ("bigram", (0.01, 0.03, 0.02)),
        ("bigram", (0.01, 0.02, 0.03)),
        (other_positions_past_a_length.MODEL, (0.01, 0.03)),  # chunks are other texts
    ],
)
def test_long_precision_says_the_largest_difference(
    model: str | type[LanguageModel], offs: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = iter(offs)
    monkeypatch.setattr(long, "_require_flat", lambda *_: next(waiting))
    result = check_model(model, only=["long_precision"]).results[0]
    assert result.saw.endswith(" in float32, 0.03 in bfloat16"), result.saw
