"""What the suite does with models, names and listeners; that it leaves the caller's world alone."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

import lmzoo
from lmzoo import registry
from lmzoo.conformance import CHECKS, Report, Result, check_model, check_names, run_check, subject
from lmzoo.conformance.tiny import CONTEXT, VOCAB
from lmzoo.conformance.training import best_loss
from lmzoo.errors import ConfigError, UnknownModelError
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State

from ..museum.base import Transformer


class Plain(LanguageModel):
    """As a user writes it: torch's own layers, no state, nothing declared."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, 8)
        self.mix = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, config.vocab_size)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        return self.mix(self.table(idx_BT))[0], state


class Broken(LanguageModel):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        raise RuntimeError("no such thing")

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        raise NotImplementedError


def test_a_plain_class_of_ones_own_passes_all_but_its_first_weights() -> None:
    report = check_model(Plain)
    assert report.failures in ([], ["initial_loss"]), str(report)  # torch's own first weights are what they are
    assert [result.name for result in report.results] == check_names()


def test_a_class_that_declares_no_costs_is_measured() -> None:
    model = subject(Plain).model()
    V = model.config.vocab_size
    assert model.flops_per_token(4) == 2 * (8 * 24 + 8 * 24 + 8 * V)  # three gates of input and state, and the head
    assert model.flops_per_token(10 * model.config.context_length) == model.flops_per_token(4)


def test_a_name_a_class_and_a_model_are_the_same() -> None:
    small = lmzoo.create_model("bigram", vocab_size=VOCAB, context_length=CONTEXT)
    reports = [check_model(target, only=["shapes"]) for target in ("bigram", type(small), small)]
    assert len({json.dumps(dict(report.config)) for report in reports}) == 1
    assert all(report.passed for report in reports)


def test_a_preset_is_made_small() -> None:
    report = check_model("gpt2.124m", only=["construction"])
    assert report.config["d_model"] <= 32
    assert report.config["vocab_size"] == VOCAB


def test_the_callers_model_stays_as_it_was() -> None:
    model = lmzoo.create_model(
        "gpt2", vocab_size=VOCAB, context_length=CONTEXT, d_model=32, n_layers=2, n_heads=4
    ).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rng = torch.get_rng_state()
    check_model(model, only=["causality", "gradients", "global_state", "compiles"])
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_a_change_to_the_instance_is_seen() -> None:
    model = Transformer(subject(Transformer).config)
    assert check_model(model, only=["causality"]).passed
    for block in model.blocks:
        block.attention.mask = lambda T, S: torch.ones(T, S, dtype=torch.bool)
    assert check_model(model, only=["causality"]).failures == ["causality"]
    model.forward = model.forward
    assert check_model(model, only=["finals"]).failures == ["finals"]


def test_the_listener_is_told_each_result_as_it_comes() -> None:
    told: list[Result] = []
    report = check_model("bigram", only=["shapes", "causality"], listener=told.append)
    assert tuple(told) == report.results


def test_nothing_else_runs_when_there_is_no_model() -> None:
    report = check_model(Broken)
    assert report.failures == ["construction"]
    assert "RuntimeError: no such thing" in report.results[0].saw
    assert not report.rankable


def test_a_report_survives_json() -> None:
    report = check_model("bigram", only=["shapes"])
    assert Report.from_dict(json.loads(report.to_json())) == report
    assert json.loads(report.to_json())["passed"] is True


def test_what_keeps_a_model_out_of_a_ranking() -> None:
    def report(group: str) -> Report:
        return Report("x", {}, (Result("a check", group, False, "", 0.0),))

    assert not report("causality").rankable
    assert not report("decoding").rankable
    assert not report("loss").rankable
    assert report("counts").rankable
    assert not report("counts").passed


def test_bad_targets_and_names() -> None:
    with pytest.raises(UnknownModelError, match="gpt2"):
        check_model("gtp2")
    with pytest.raises(ConfigError, match="did you mean 'causality'"):
        check_model("bigram", only=["causalty"])
    with pytest.raises(ConfigError, match="must be a registered name"):
        check_model(3)  # type: ignore[arg-type]


def test_every_check_says_what_it_finds() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.run.__doc__ for check in CHECKS)


def test_options_that_are_off_are_checked_too() -> None:
    names = [variant.name for variant in subject("llama").varied()]
    assert any("window=5" in name for name in names)
    assert any("tie_embeddings" in name for name in names)
    receptive = next(check for check in CHECKS if check.name == "receptive_field")
    assert "window=5" in run_check(receptive, subject("llama")).saw


def test_best_loss_is_the_entropy_of_what_can_be_seen() -> None:
    idx = torch.tensor([[0, 1, 0, 1]])
    targets = torch.tensor([[1, 0, 1, 2]])
    assert best_loss(idx, targets, None) == pytest.approx(0)
    assert best_loss(idx, targets, 1) == pytest.approx(2 * 0.6931 / 4, abs=1e-4)  # after 1 comes 0 or 2


class Fourier(LanguageModel):
    """A causal convolution as long as the text, by FFT: right, but rounding carries a trace of the future back."""

    tolerance = 1e-5

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, 8)
        self.filter_TD = nn.Parameter(torch.randn(config.context_length, 8) / 4)
        self.head = nn.Linear(8, config.vocab_size)

    @property
    def traits(self) -> Traits:
        return Traits(causal_tolerance=self.tolerance)

    def features(self, idx_BT: Tensor, state: object = None) -> tuple[Tensor, object]:
        T = idx_BT.shape[1]
        x_BFD, filter_FD = (torch.fft.rfft(z, n=2 * T, dim=-2) for z in (self.table(idx_BT), self.filter_TD[:T]))
        return torch.fft.irfft(x_BFD * filter_FD, n=2 * T, dim=-2)[:, :T], state


@pytest.mark.parametrize(("tolerance", "passes"), [(1e-5, True), (0.0, False), (1e-12, False)])
def test_an_fft_convolution_needs_a_declared_tolerance(
    tolerance: float, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fourier, "tolerance", tolerance)
    report = check_model(Fourier, only=["causality", "gradient_causality"])
    assert report.passed == passes, str(report)


def test_a_model_without_products_must_declare_exact_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = registry.model_class("bigram")
    assert check_model(cls, only=["batch_independence"]).passed
    monkeypatch.setattr(cls, "traits", property(lambda model: Traits(extrapolates=True, receptive_field=1)))
    assert "declare batch_exact=True" in check_model(cls, only=["batch_independence"]).results[0].saw
