"""Causality checks: leaks that they must find, and rounding that they must allow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lmzoo.conformance import Fault, causality, check_model, subject
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State
from tests.museum.base import Attention, Cell, MuseumConfig, Recurrent, Transformer

CAUSALITY = ["causality", "gradient_causality", "bfloat16_causality"]


class Fourier(LanguageModel):
    """A causal convolution as long as the sequence, by FFT: correct, but rounding depends on later tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, 8)
        self.filter_TD = nn.Parameter(torch.randn(config.context_length, 8) / 4)
        self.head = nn.Linear(8, config.vocab_size)

    def features(self, idx_BT: Tensor, state: object = None) -> tuple[Tensor, object]:
        T = idx_BT.shape[1]
        x_BFD, filter_FD = (torch.fft.rfft(z, n=2 * T, dim=-2) for z in (self.table(idx_BT), self.filter_TD[:T]))
        return torch.fft.irfft(x_BFD * filter_FD, n=2 * T, dim=-2)[:, :T], state


def test_causality_allows_an_fft_convolution() -> None:
    report = check_model(Fourier, only=CAUSALITY)
    assert report.passed, str(report)


class TooShortFourier(Fourier):
    def features(self, idx_BT: Tensor, state: object = None) -> tuple[Tensor, object]:
        x_BTD, _ = super().features(idx_BT, state)
        return x_BTD + 1e-6 * self.table(idx_BT).mean(1, keepdim=True), state


def test_causality_finds_a_leak_of_the_size_of_float32_rounding() -> None:
    report = check_model(TooShortFourier, only=CAUSALITY)
    assert report.failures[:2] == ["causality", "gradient_causality"]
    assert "float32" not in report.results[0].saw


class Overflowing(Recurrent):
    """Logits of infinity, which change by infinity when a later token changes."""

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return x_BTD * torch.where(idx_BT == 3, torch.inf, 1.0)[..., None], state


class Counting(Recurrent):
    """Each pass gives other logits than the one before."""

    passes = 0

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        self.passes += 1
        return x_BTD * self.passes, state


class Noisy(Recurrent):
    """Noise in eval mode, too."""

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return x_BTD + torch.rand_like(x_BTD), state


class Short(Recurrent):
    """Texts of at most 64 tokens have other features than longer ones, and single tokens others again."""

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return x_BTD * (2.0 if idx_BT.shape[1] <= 64 else 1.0) + float(idx_BT.shape[1] == 1), state


class SixteenRows(Recurrent):
    """Of more than 16 rows, the others are zero."""

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return torch.cat([x_BTD[:16], 0 * x_BTD[16:]]), state


@pytest.mark.parametrize("check", ["causality", "long_causality"])
@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Overflowing, "logits are not finite; look at exponentials"),
        (Counting, "a second pass on the same tokens in eval mode is off by"),
        (Noisy, "a second pass on the same tokens in eval mode is off by"),
        (Short, "look at what depends on the number of tokens"),
        (SixteenRows, "the logits of row 24 are off by"),
    ],
)
def test_causality_names_what_looks_like_a_leak(check: str, model: type[LanguageModel], says: str) -> None:
    (result,) = check_model(model, only=[check]).results
    if model is SixteenRows and check == "long_causality":
        assert result.passed  # it has nine rows
    else:
        assert says in result.saw
        assert "mixes positions" not in result.saw


class Dropped(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.drop = nn.Dropout(0.0)

    def embed(self, idx_BT: Tensor, position: int, state: State) -> Tensor:
        return self.drop(super().embed(idx_BT, position, state))


def test_causality_passes_a_model_with_dropout() -> None:
    report = check_model(Dropped, only=CAUSALITY)
    assert report.passed, str(report)


class LeaksInTraining(Transformer):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        if self.training and torch.is_grad_enabled():
            x_BTD = x_BTD + 1e-3 * x_BTD.mean(1, keepdim=True)
        return x_BTD, state


def test_causality_runs_in_train_mode() -> None:
    result = check_model(LeaksInTraining, only=["causality"]).results[0]
    assert result.saw.startswith("in train mode, changing the tokens from position 23 of 24 on"), result.saw


class SeesTheLength(Transformer):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return x_BTD * (1 + 1e-5 * idx_BT.shape[1]), state


def test_causality_finds_dependence_on_the_length_alone() -> None:
    result = check_model(SeesTheLength, only=["causality"]).results[0]
    assert result.saw.startswith("leaving out the tokens from position 23 of 24 on"), result.saw


class NormalizedMean(Attention):
    """Sums over all positions in float32, masked ones included, with a weight of zero."""

    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        y_BTD = super().attend(q_BTHK, k_BSHK, v_BSHK, allowed_TS)
        rounded_BTD = (y_BTD + v_BSHK.mean(1, keepdim=True).flatten(2)).float()
        return rounded_BTD.to(y_BTD.dtype) - v_BSHK.mean(1, keepdim=True).flatten(2)


class RoundsInFloat32(Transformer):
    attention_class = NormalizedMean


def test_causality_names_the_line_that_computes_in_float32() -> None:
    result = check_model(RoundsInFloat32, only=["causality"]).results[0]
    assert "something is computed in float32 there, at test_causality.py:" in result.saw, result.saw


class LeaksBeyondTheContext(Recurrent):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        if idx_BT.shape[1] > 32:
            mean_B1D = x_BTD[:, 32:].mean(1, keepdim=True)
            x_BTD = x_BTD + (mean_B1D - mean_B1D.detach())
        return x_BTD, state


def test_gradient_causality_looks_beyond_a_chunk_of_32() -> None:
    report = check_model(LeaksBeyondTheContext, only=CAUSALITY)
    assert report.failures == ["gradient_causality"]


class BFloat16Attention(Attention):
    """One position sees the next one, in bfloat16 alone."""

    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        if v_BSHK.dtype == torch.bfloat16:
            T, S = allowed_TS.shape
            allowed_TS = torch.arange(S - T + 1, S + 1)[:, None] >= torch.arange(S)
        return super().attend(q_BTHK, k_BSHK, v_BSHK, allowed_TS)


class PeeksInBFloat16(Transformer):
    attention_class = BFloat16Attention


def test_bfloat16_causality_finds_a_mask_off_by_one() -> None:
    report = check_model(PeeksInBFloat16, only=CAUSALITY)
    assert report.failures == ["bfloat16_causality"]
    assert "of 5 cuts" in report.results[-1].saw


class SmallStep(Transformer):
    """In bfloat16, all positions see a little of the mean, or the first sees a little of the second token."""

    everywhere, first = 0.0, 0.0

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        if torch.is_autocast_enabled("cpu"):
            second_B1 = (idx_BT[:, 1:2] / 13).to(x_BTD.dtype)
            x_BTD = x_BTD + self.everywhere * x_BTD.mean(1, keepdim=True)
            x_BTD = torch.cat([x_BTD[:, :1] + self.first * second_B1[..., None], x_BTD[:, 1:]], dim=1)
        return x_BTD, state


@pytest.mark.parametrize(("everywhere", "first", "passes"), [(0.01, 0.0, False), (0.0, 0.02, True), (0.0, 1.0, False)])
def test_bfloat16_causality_allows_small_steps_at_a_few_cuts_alone(
    everywhere: float, first: float, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step at one cut of five is what an FFT in float32 leaves behind, where its rounding turns a value over."""
    monkeypatch.setattr(SmallStep, "everywhere", everywhere)
    monkeypatch.setattr(SmallStep, "first", first)
    result = check_model(SmallStep, only=["bfloat16_causality"]).results[0]
    assert result.passed == passes, result.saw
    assert ("equal up to rounding" in result.saw) == passes


class RoundedCell(Cell):
    """In bfloat16, rounds differently when the number of positive inputs of the batch is odd, as experts may."""

    leak = 0.0

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        if torch.is_autocast_enabled("cpu"):
            n_rows = int((x_BTD[..., 0] > 0).sum())
            y_BTD = y_BTD * (1 + 2.0**-9 * (n_rows % 4)) + self.leak * x_BTD.mean(1, keepdim=True)
        return y_BTD, state


class Rounded(Recurrent):
    cell_class = RoundedCell


@pytest.mark.parametrize(("leak", "passes"), [(0.0, True), (0.5, False)])
def test_bfloat16_causality_allows_the_rounding_that_other_rows_cause(
    leak: float, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RoundedCell, "leak", leak)
    result = check_model(Rounded, only=["bfloat16_causality"]).results[0]
    assert result.passed == passes, result.saw
    assert ("no more changed than by other rows of the batch" in result.saw) == passes


@pytest.mark.parametrize(
    ("noise", "place", "passes"), [(0.09, 23, False), (0.11, 23, True), (0.09, 12, False), (0.09, 2, True)]
)
def test_bfloat16_causality_allows_four_times_the_noise_of_other_rows_at_most_cuts(
    noise: float, place: int, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits change by 0.4 when the token at `place` does: at all of the cuts 23, 22, 12, 2, 1, or at some of them."""
    checked = subject("bigram")
    original = checked.tokens(2, checked.context)

    def logits(_model: object, idx: Tensor, *, autocast: bool) -> Tensor:
        changed = noise if not torch.equal(idx[1], original[1]) else 0.0
        return torch.full((*idx.shape, 1), 0.4 if idx[0, place] != original[0, place] else changed)

    monkeypatch.setattr(causality, "_logits", logits)
    monkeypatch.setattr(causality, "lengths", lambda checked, _model: [checked.context])
    if passes:
        assert "no more changed than by other rows" in causality.bfloat16_causality(checked)
    else:
        with pytest.raises(Fault, match="on changes earlier logits by"):
            causality.bfloat16_causality(checked)


class Short(Transformer):
    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True)


@pytest.mark.parametrize("context", [1, 2, 3])
def test_causality_takes_the_shortest_contexts(context: int) -> None:
    model = Short(MuseumConfig(vocab_size=13, context_length=context))
    report = check_model(model, only=[*CAUSALITY, "receptive_field"])
    assert report.passed, str(report)


class Positions(Transformer):
    """Sees the last two tokens, whatever it declares."""

    declared: int | None = None

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, receptive_field=self.declared)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD = self.tokens(idx_BT)
        return x_BTD + nn.functional.pad(x_BTD, (0, 0, 1, 0))[:, :-1], state


@pytest.mark.parametrize(
    ("declared", "says"), [(None, "depend on no token more than 1 back"), (1, "depend on the token 1 back"), (2, "")]
)
def test_receptive_field_holds_the_declaration_both_ways(
    declared: int | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Positions, "declared", declared)
    result = check_model(Positions, only=["receptive_field"]).results[0]
    assert result.passed == (not says)
    assert says in result.saw


def test_gradient_causality_names_the_first_leak() -> None:
    class SeesAll(Attention):
        def mask(self, T: int, S: int) -> Tensor:
            return torch.ones(T, S, dtype=torch.bool)

    class Open(Transformer):
        attention_class = SeesAll

    result = check_model(Open, only=["gradient_causality"]).results[0]
    assert result.saw.startswith("the gradient of the logits at position 0 with respect to the token at position 1 is ")


class SeesTheTokenBefore(Transformer):
    """The logits of the first position depend on no token."""

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        return nn.functional.pad(self.tokens(idx_BT), (0, 0, 1, 0))[:, :-1], state


def test_gradient_causality_accepts_a_position_without_gradients() -> None:
    saw = causality.gradient_causality(subject(SeesTheTokenBefore))
    assert saw == "gradients of 50 positions to later tokens are zero, in float64"
