"""Checks of final methods, shapes, errors, and generation."""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.conformance import check_model, subject
from lmzoo.state import State
from tests.museum.base import Transformer


def test_shapes_names_the_case_that_raises() -> None:
    class NeedsTwoTokens(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            if idx_BT.shape[1] == 1:
                raise RuntimeError("a difference needs two tokens\nand more")
            return super().features(idx_BT, state)

    result = check_model(NeedsTwoTokens, only=["shapes"]).results[0]
    says = "idx of B = 3 rows and T = 1 tokens raises RuntimeError: a difference needs two tokens at test_contract.py:"
    assert result.saw.startswith(says)


def test_shapes_tries_one_row() -> None:
    class Squeezes(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return x_BTD.squeeze(0), state

    result = check_model(Squeezes, only=["shapes"]).results[0]
    assert result.saw.startswith(
        "idx of B = 1 rows and T = 2 tokens raises TypeError: features() of Squeezes returned x"
    )


def test_shapes_names_a_loss_that_is_not_finite() -> None:
    class Infinite(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return (x_BTD if idx_BT.shape[1] > 1 else x_BTD / 0), state

    result = check_model(Infinite, only=["shapes"]).results[0]
    assert result.saw.startswith("idx (3, 1) gives logits that are not finite; look at exponentials")


def test_generation_uses_a_seed_that_does_not_repeat_one_token() -> None:
    """With the first seed, `Transformer` generates the same token again and again, whatever the prompt."""
    checked = subject(Transformer)
    prompt = checked.tokens(2, 3)
    assert len(checked.model().generate(prompt, 26, temperature=0.0)[:, 3:].unique()) == 2

    class FromTheLastToken(Transformer):
        def generate(self, idx: Tensor, max_new_tokens: int, **settings: object) -> Tensor:
            return torch.cat([idx[:, :-1], super().generate(idx[:, -1:], max_new_tokens, **settings)], dim=1)

    assert check_model(FromTheLastToken, only=["generation"]).failures == ["generation"]


def test_finals_names_the_class_that_overrides() -> None:
    class Own(Transformer):
        def num_params(self, *, embedding: bool = True) -> int:
            return 0

    result = check_model(Own, only=["finals"]).results[0]
    assert result.saw.startswith("Own overrides num_params, which is final")


def test_edges_names_a_bad_call_that_is_accepted() -> None:
    class Accepts(Transformer):
        def _check_ids(self, name: str, idx: Tensor, *, like: Tensor | None = None) -> None:
            pass

        def embed(self, idx_BT: Tensor, position: int, state: State) -> Tensor:
            return self.tokens(idx_BT.long() % self.config.vocab_size)

    result = check_model(Accepts, only=["edges"]).results[0]
    assert result.saw == "an id of 13 is accepted, and must raise InputError"


def test_contract_checks_pass_a_sound_model() -> None:
    report = check_model(Transformer, only=["construction", "finals", "shapes", "edges", "generation"])
    assert report.passed, str(report)
