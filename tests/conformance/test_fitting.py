"""Checks of `fit`: the fault that each of four models has is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import Fault, check_model, subject
from lmzoo.conformance.fitting import require_fit
from lmzoo.model import LanguageModel
from tests.museum.sound import counted_pairs


def test_require_fit_checks_what_fit_does() -> None:
    class Idle(counted_pairs.MODEL):
        def fit(self, tokens_BT: Tensor) -> None:
            pass

    class Growing(counted_pairs.MODEL):
        def fit(self, tokens_BT: Tensor) -> None:
            self.counts_VV = torch.ones(len(tokens_BT), 5)

    class Missing(counted_pairs.MODEL):
        fit = LanguageModel.fit

    def saw(model: type[LanguageModel]) -> str:
        return check_model(model, only=["overfitting"]).results[0].saw

    assert saw(Idle).startswith(
        "the loss on a text is 2.56 nats after fit() of this text, and 2.56 after fit() of another"
    )
    assert "fit() changes the shape of counts_VV from (13, 13) to (4, 5)" in saw(Growing)
    assert "Missing has no fit: it is trained by gradients" in saw(Missing)
    assert "after fit() of another text" in saw(counted_pairs.MODEL)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16])
def test_require_fit_finds_counters_that_overflow(dtype: torch.dtype) -> None:
    class Narrow(counted_pairs.MODEL):
        def fit(self, tokens_BT: Tensor) -> None:
            super().fit(tokens_BT)
            self.counts_VV.copy_(self.counts_VV.to(dtype).clamp(min=0))

        def features(self, idx_BT: Tensor, state: Any = None) -> tuple[Tensor, Any]:
            return (1.0 + self.counts_VV[idx_BT]).log(), state  # with shares of counts, which a smaller count changes

    with pytest.raises(Fault, match="look at the dtype of counters in fit"):
        require_fit(subject(Narrow), subject(Narrow).tokens(2, 13, seed=3))
