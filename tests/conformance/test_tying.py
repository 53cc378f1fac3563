"""The check of tied weights."""

from __future__ import annotations

from torch import Tensor, nn

from lmzoo.conformance import check_model, subject, tying
from lmzoo.layers.linear import Linear
from lmzoo.state import State
from tests.museum.base import CellConfig, MuseumConfig, Recurrent, Transformer


def test_tied_weights_accepts_a_module_under_two_names() -> None:
    class OneNorm(Recurrent):
        def __init__(self, config: CellConfig) -> None:
            super().__init__(config)
            self.last_norm = self.norm

    (result,) = check_model(Transformer, only=["tied_weights"]).results
    assert result.saw.startswith("no shared parameters, as the config says; also with tie_embeddings=True")
    (result,) = check_model(OneNorm, only=["tied_weights"]).results
    assert result.saw == "1 groups of shared parameters, kept through load and cast"


def test_tied_weights_refuses_a_parameter_of_two_modules_in_a_variant() -> None:
    class OneTable(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            if config.tie_embeddings:
                self.head = Linear(config.d_model, config.vocab_size, bias=False)
                self.head.weight = self.tokens.weight

    (result,) = check_model(OneTable, only=["tied_weights"]).results
    assert "with tie_embeddings=True: tokens.weight and head.weight are one parameter that two modules" in result.saw


def test_tied_weights_accepts_features_that_are_logits_already() -> None:
    class Logits(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            self.table = self.head
            self.head = nn.Identity()

        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return self.table(x_BTD), state

    tied = subject(Logits)._with({"tie_embeddings": True})
    assert tying.tied_weights(tied) == "no shared parameters, as the config says"  # the head reads those of the table
