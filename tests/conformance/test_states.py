"""Checks that a state is a value."""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo import state as states
from lmzoo.conformance import check_model
from lmzoo.state import State
from tests.museum.base import Recurrent, Transformer

STATES = ["state_is_a_value", "state_rows", "state_dtype", "state_saved"]


def test_state_checks_pass_for_correct_models() -> None:
    for right in (Transformer, Recurrent):
        report = check_model(right, only=[*STATES, "max_len"])
        assert report.passed, str(report)


class ChangesItsState(Recurrent):
    """Writes the next state into the tensors of the state that it was given."""

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, after = super().features(idx_BT, state)
        if state is not None and idx_BT.shape[1] == 1:
            for before, piece in zip(states.tensors(state), states.tensors(after), strict=True):
                before.copy_(piece)
        return x_BTD, after


def test_state_is_a_value_compares_the_continuations_of_one_state_first() -> None:
    result = check_model(ChangesItsState, only=["state_is_a_value"]).results[0]
    assert result.saw.startswith("the same continuation of one state, after another one was decoded is off by")


class Tape(Recurrent):
    """Adds up all tokens so far, from one tensor that every continuation of a state writes into."""

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return {"tape": like.new_zeros(batch_size, max_len, self.config.d_model), "position": 0}

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD = self.tokens(idx_BT)
        if state is None:
            return self.norm(x_BTD.cumsum(1)), None
        tape_BSD, start, end = state["tape"], state["position"], state["position"] + idx_BT.shape[1]
        with torch.no_grad():
            tape_BSD[:, start:end] = x_BTD
        return self.norm(tape_BSD[:, :end].cumsum(1)[:, start:]), {"tape": tape_BSD, "position": end}


def test_state_is_a_value_finds_a_buffer_that_two_continuations_share() -> None:
    result = check_model(Tape, only=["state_is_a_value"]).results[0]
    assert result.saw.startswith("token 1 of two interleaved continuations is off by")


def test_state_rows_names_the_shape_without_the_batch_first() -> None:
    class Summed(Recurrent):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            if state is not None:
                state = [{**piece, "mean": piece["h"].mean(0)} for piece in state]
            return x_BTD, state

    result = check_model(Summed, only=["state_rows"]).results[0]
    assert result.saw.startswith("a state of 3 rows holds a tensor (16,)")


def test_state_dtype_names_the_types() -> None:
    class Widens(Recurrent):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            if state is not None:
                state = [{name: tensor.double() for name, tensor in piece.items()} for piece in state]
            return x_BTD.to(torch.float32), state

    result = check_model(Widens, only=["state_dtype"]).results[0]
    assert not result.passed
