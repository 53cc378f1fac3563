"""Causes and consequences: what a check presumes, and which failure is named as the cause."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import check_model, check_names
from lmzoo.conformance.consequences import PRESUMED, cause_of
from tests.museum.base import Attention, Cell, Recurrent, Transformer


def test_presumed_checks_exist_and_run_before() -> None:
    names = check_names()
    assert set(PRESUMED) <= set(names)
    for name, presumed in PRESUMED.items():
        assert set(presumed) <= set(names)
        # A group of checks shares one list: of this, a check cannot follow from those that run after it.
        assert any(names.index(other) < names.index(name) for other in presumed), name


def test_cause_of_is_the_most_basic_failure() -> None:
    assert cause_of("max_len", ["decoding", "causality", "flops"]) == "causality"
    assert cause_of("flops", ["decoding", "causality"]) == ""
    assert cause_of("decoding", ["decoding"]) == ""


class ForgetfulCell(Cell):
    """The convolution of the second chunk begins without the tail of the first."""

    def convolve(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        return super().convolve(x_BTD, torch.zeros_like(tail_BWD))


class Forgetful(Recurrent):
    cell_class = ForgetfulCell


class SumsRowsAttention(Attention):
    def merge(self, y_BHTK: Tensor) -> Tensor:
        y_BTD = super().merge(y_BHTK)
        return y_BTD + 0.1 * y_BTD.sum(0, keepdim=True)


class SumsRows(Transformer):
    attention_class = SumsRowsAttention


@pytest.mark.parametrize(
    ("model", "cause"),
    [(Forgetful, "decoding"), (SumsRows, "batch_independence")],
)
def test_check_model_names_one_cause(model: type[Recurrent | Transformer], cause: str) -> None:
    names = ["batch_independence", "causality", "decoding", "max_len", "state_is_a_value", "changed_weights"]
    report = check_model(model, only=names)
    assert report.causes == [cause], str(report)
    assert len(report.failures) > 1
