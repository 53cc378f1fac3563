"""Checks of the caller's own model, which may differ from every model that its class and config give."""

from __future__ import annotations

import pytest
import torch

import lmzoo
from lmzoo.conformance import CHECKS, check_model, own
from lmzoo.model import LanguageModel

OWN = [check.name for check in CHECKS if check.needs_instance]


@pytest.fixture
def model() -> LanguageModel:
    return lmzoo.create_model("gpt2", vocab_size=65, d_model=48, n_layers=4, n_heads=2, context_length=64)


def test_own_checks_pass_a_model_as_it_is_built(model: LanguageModel) -> None:
    report = check_model(model, only=OWN)
    assert report.passed, str(report)
    assert [result.name for result in report.results] == OWN
    seen = [result.saw for result in report.results]
    assert all(saw.startswith("your own model") for saw in seen)
    for saw, tried in zip(seen, ("4 cuts of 16 tokens", "64 tokens: gradients reach", "3 splits of 16"), strict=True):
        assert tried in saw


@pytest.mark.parametrize(("context", "cuts", "splits"), [(2, 1, 1), (3, 2, 3)])
def test_own_checks_take_a_model_of_a_short_context(context: int, cuts: int, splits: int) -> None:
    short = lmzoo.create_model("gpt2", vocab_size=65, d_model=48, n_layers=1, n_heads=2, context_length=context)
    report = check_model(short, only=OWN)
    assert report.passed, str(report)
    seen = " ".join(result.saw for result in report.results)
    assert f"{cuts} cuts of {context} tokens" in seen
    assert f"{splits} splits of {context} tokens" in seen


def test_own_causality_finds_a_last_position_that_is_not_finite(model: LanguageModel) -> None:
    """It stands before no cut, so that no comparison looks at it."""

    def spoil(_module: object, _inputs: object, logits_BTV: torch.Tensor) -> torch.Tensor:
        return torch.cat([logits_BTV[:, :-1], logits_BTV[:, -1:] / 0], dim=1)

    model.head.register_forward_hook(spoil)
    result = check_model(model, only=["own_causality"]).results[0]
    assert result.saw.startswith("your own model gives logits that are not finite; look at its weights")


def test_own_decoding_names_the_largest_difference(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([1e-12, 3e-12, 2e-12])
    monkeypatch.setattr(own, "check_split", lambda *_: next(found))
    assert check_model(model, only=["own_decoding"]).results[0].saw.endswith("off by at most 3e-12")


def test_own_receptive_field_finds_a_window_set_by_hand(model: LanguageModel) -> None:
    for module in model.modules():
        if hasattr(module, "window"):
            module.window = 4
    report = check_model(model, only=[*OWN, "receptive_field"])
    assert report.failures == ["own_receptive_field"], str(report)


def test_own_causality_and_own_decoding_find_a_layer_changed_by_hand(model: LanguageModel) -> None:
    def add_the_mean(_module: object, _inputs: object, out: tuple[torch.Tensor, object]) -> tuple[torch.Tensor, object]:
        return out[0] + out[0].mean(1, keepdim=True), out[1]  # over all tokens, later ones included

    model.blocks[2].register_forward_hook(add_the_mean)  # type: ignore[arg-type]
    assert check_model(model, only=OWN).failures == ["own_causality", "own_decoding"]


def test_own_checks_leave_the_model_as_it_was(model: LanguageModel) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    check_model(model, only=OWN)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.dtype == torch.float32


def test_own_checks_do_not_run_for_a_name() -> None:
    assert not [result.name for result in check_model("bigram", only=["shapes", *OWN]).results if result.name in OWN]
