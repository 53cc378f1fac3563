"""The context of a forward pass: positions, and rotary tables that are computed once."""

from __future__ import annotations

import pytest
import torch

from lmzoo.errors import InputError
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.rope_scaling import Dynamic, Linear, LongRope


def make(position: int = 0, T: int = 4, dtype: torch.dtype = torch.float32) -> Context:
    return Context(position, T, torch.device("cpu"), dtype)


def test_context_positions_start_at_its_position() -> None:
    assert make(5, 3).positions_T.tolist() == [5, 6, 7]


def test_context_rope_computes_each_table_once() -> None:
    ctx = make()
    assert ctx.rope(Rope(), 8) is ctx.rope(Rope(), 8)
    assert ctx.rope(Rope(), 8) is not ctx.rope(Rope(theta=500.0), 8)
    assert ctx.rope(Rope(), 8) is not ctx.rope(Rope(), 4)


def test_context_rope_turns_as_in_its_paper() -> None:
    cos_TR, sin_TR = make(position=3, T=1, dtype=torch.float64).rope(Rope(), 8)
    angle_R = 3 * 10000 ** (-2 * torch.arange(4, dtype=torch.float64) / 8)
    torch.testing.assert_close(cos_TR[0], angle_R.cos())
    torch.testing.assert_close(sin_TR[0], angle_R.sin())


def test_context_rope_with_a_fraction_rotates_the_first_features_of_a_head() -> None:
    cos_TR, _ = make().rope(Rope(fraction=0.25), 16)
    assert cos_TR.shape == (4, 2)
    assert torch.equal(cos_TR, make().rope(Rope(), 4)[0])


def test_context_rope_follows_the_precision_of_the_model() -> None:
    assert make(dtype=torch.bfloat16).rope(Rope(), 8)[0].dtype == torch.float32
    cos_TR, _ = make(position=100_000, dtype=torch.float64).rope(Rope(), 8)
    assert cos_TR.dtype == torch.float64
    assert cos_TR[0, 0] == torch.cos(torch.tensor(100_000.0, dtype=torch.float64))


def test_context_rope_follows_its_scaling() -> None:
    cos_TR, _ = make(position=8, T=2).rope(Rope(scaling=Linear(4.0)), 8)
    torch.testing.assert_close(cos_TR[0], make(position=2, T=2).rope(Rope(), 8)[0][0])


def test_context_rope_depends_on_the_length_of_the_text_and_refuses_a_state_of_another() -> None:
    longrope = Rope(scaling=LongRope(2.0, 8, short=(1.0,) * 4, long=(2.0,) * 4, attention=1.0))
    whole = make(T=9).rope(longrope, 8)[0]
    torch.testing.assert_close(whole, make(T=9).rope(Rope(scaling=Linear(2.0)), 8)[0])
    torch.testing.assert_close(make(T=8).rope(longrope, 8)[0], make(T=8).rope(Rope(), 8)[0])
    assert make(position=7, T=1).rope(longrope, 8)[0].shape == (1, 4)
    torch.testing.assert_close(make(position=9, T=1).rope(longrope, 8)[0], make(T=10).rope(longrope, 8)[0][9:])
    error = "^a text of 9 tokens has other rotary frequencies than its first 8, which were read before: read it in one"
    with pytest.raises(InputError, match=error):
        make(position=8, T=1).rope(longrope, 8)
    dynamic = Rope(scaling=Dynamic(2.0, 8))
    with pytest.raises(InputError, match="rope_scaling is dynamic"):
        make(position=9, T=1).rope(dynamic, 8)
    assert make(position=5, T=3).rope(dynamic, 8)[0].shape == (3, 4)


def test_context_carry_is_empty_in_each_new_context() -> None:
    first = make()
    first.carry["value"] = 1
    assert make().carry == {}
