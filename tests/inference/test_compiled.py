"""The compiled step gives what the eager one does: for every family, at every step, from states that are values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import lmzoo
from lmzoo.errors import InputError
from lmzoo.inference import decoding_copy
from lmzoo.state import State

SIZES = {"vocab_size": 33, "context_length": 24}
SMALL = {"n_layers": 1, "d_model": 32, "n_heads": 2}


def small(family: str, **settings: Any) -> lmzoo.LanguageModel:
    known = {field: value for field, value in SMALL.items() if field in fields(family)}
    generator = torch.Generator().manual_seed(0)
    return lmzoo.create_model(family, **SIZES, **known, **settings, generator=generator).eval()


def fields(family: str) -> set[str]:
    return set(lmzoo.registry.model_class(family).config_class.__dataclass_fields__)


def step_by_step(model: lmzoo.LanguageModel, idx_BT: Tensor, prefill: int, room: int) -> tuple[Tensor, list[State]]:
    """The logits after every token from `prefill` on, and the states before them."""
    logits_BV, state = model.decode(idx_BT[:, :prefill], model.init_state(len(idx_BT), room))
    found, states = [logits_BV], []
    for t in range(prefill, idx_BT.shape[1]):
        states.append(state)
        logits_BV, state = model.decode(idx_BT[:, t : t + 1], state)
        found.append(logits_BV)
    return torch.stack(found, dim=1), states


def assert_near(found: Tensor, wanted: Tensor) -> None:
    """Within the rounding of bfloat16, of which a fused step does less than an eager one."""
    assert (found - wanted).abs().max() < 0.03 * wanted.abs().max() + 1e-6


@pytest.mark.parametrize("family", [name for name in lmzoo.list_models() if "." not in name])
def test_equals_the_eager_step(family: str) -> None:
    """One row and several; more tokens than there is room for, and than a model without positions beyond them sees."""
    for rows in (1, 3):
        model = small(family)
        idx_BT = torch.randint(33, (rows, 28), generator=torch.Generator().manual_seed(1))
        eager, compiled = (decoding_copy(model, "bfloat16", rows=rows, compiled=c) for c in (False, True))
        wanted_BSV, _ = step_by_step(eager, idx_BT, 3, 16)
        found_BSV, states = step_by_step(compiled, idx_BT, 3, 16)
        assert_near(found_BSV, wanted_BSV)
        step = compiled.compiled_step
        assert step is not None
        grows = eager.traits.state_growth == "linear"
        assert step.can_take(idx_BT[:, :1], states[0]["layers"]) != grows, "what was written behind it is another's"
        again_BV, _ = compiled.decode(idx_BT[:, 5:6], states[2])  # a state from before is as good as ever
        assert_near(again_BV, wanted_BSV[:, 3])


def test_int8_and_a_sliding_window() -> None:
    """Positions and the lengths of the buffers part when the buffers first drop what is out of reach."""
    model = small("llama", window=4)
    idx_BT = torch.randint(33, (1, 28), generator=torch.Generator().manual_seed(1))
    eager, compiled = (decoding_copy(model, "int8", compiled=c) for c in (False, True))
    wanted_BSV, _ = step_by_step(eager, idx_BT, 3, 40)
    found_BSV, _ = step_by_step(compiled, idx_BT, 3, 40)
    assert_near(found_BSV, wanted_BSV)


def test_what_cannot_be_compiled_is_said() -> None:
    class Looks(type(small("bigram"))):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return (x_BTD if float(x_BTD.sum()) > 1e9 else x_BTD + 0.0), state

    model = decoding_copy(Looks(small("bigram").config), "bfloat16", compiled=True)
    with pytest.raises(InputError, match="this model's step cannot be compiled: "):
        model.generate(torch.zeros(1, 1, dtype=torch.long), 3)
