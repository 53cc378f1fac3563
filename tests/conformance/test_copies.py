"""Checks of copies with weights in smaller formats."""

from __future__ import annotations

from torch import Tensor

from lmzoo.conformance import check_model
from lmzoo.layers.linear import Linear
from tests.museum.base import CellConfig, MuseumConfig, Recurrent, Transformer


class Capped(Linear):
    """A linear map with a soft cap."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        return 0.1 * (super().forward(x_BTD) / 0.1).tanh()


class WithCap(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.head = Capped(config.d_model, config.vocab_size)


def test_decoding_copies_keeps_a_forward_of_its_own() -> None:
    assert check_model(WithCap, only=["decoding_copies"]).passed


def test_decoding_copies_takes_a_short_context() -> None:
    report = check_model(Transformer(MuseumConfig(vocab_size=13, context_length=3)), only=["decoding_copies"])
    assert report.passed, str(report)


class Loses(WithCap):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.cells[0].out = NeedsFloat32(config.d_model, config.d_model)


class NeedsFloat32(Linear):
    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.float() @ self.weight.T


def test_decoding_copies_reports_an_exception_with_its_format() -> None:
    (result,) = check_model(Loses, only=["decoding_copies"]).results
    assert result.saw.startswith("a copy with bfloat16 weights raised RuntimeError: expected m1 and m2 to have")
