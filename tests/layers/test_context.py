"""The context of a forward pass: positions, and rotary tables that are computed once."""

from __future__ import annotations

import torch

from lmzoo.layers.context import Context, Rope
from lmzoo.layers.rope_scaling import Linear


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


def test_context_carry_is_empty_in_each_new_context() -> None:
    first = make()
    first.carry["value"] = 1
    assert make().carry == {}
