"""Tests of rotary position embedding: a rotation in the complex plane."""

from __future__ import annotations

import math

import torch

from lmzoo.ops.rope import apply_rope, rope_table, rotated_features

CPU = torch.device("cpu")


def test_rotated_features_are_an_even_number_rounded_down() -> None:
    shares = [(8, 1.0), (8, 0.25), (12, 0.25), (9, 0.25), (98, 6 / 98), (7, 0.25), (8, 0.0)]
    assert [rotated_features(*share) for share in shares] == [8, 2, 2, 2, 6, 0, 0]


def test_rope_table_equals_its_formula() -> None:
    cos, sin = rope_table(7, 3, 6, 100.0, device=CPU)
    for t in range(3):
        for i in range(3):
            angle = (7 + t) * 100.0 ** (-2 * i / 6)
            assert abs(cos[t, i].item() - math.cos(angle)) < 1e-7
            assert abs(sin[t, i].item() - math.sin(angle)) < 1e-7
    assert cos.shape == sin.shape == (3, 3)
    assert cos.dtype == sin.dtype == torch.float32


def test_rope_table_takes_other_frequencies_and_a_magnitude() -> None:
    plain, rescaled = (
        rope_table(7, 3, 6, 100.0, device=CPU, dtype=torch.float64, **options)
        for options in ({}, {"rescale": lambda frequency_K, theta: frequency_K / theta, "magnitude": 2.0})
    )
    angle_TK = torch.atan2(plain[1][:, 1:], plain[0][:, 1:]) / 100  # the fastest pair has turned more than once
    torch.testing.assert_close(rescaled[0][:, 1:], 2 * angle_TK.cos())
    torch.testing.assert_close(rescaled[1][:, 1:], 2 * angle_TK.sin())


def test_rope_table_is_exact_at_far_positions() -> None:
    cos, sin = rope_table(1_000_000, 1, 8, 10_000.0, device=CPU)
    for i in range(4):
        angle = 1_000_000 * 10_000.0 ** (-i / 4)
        assert abs(cos[0, i].item() - math.cos(angle)) < 1e-6
        assert abs(sin[0, i].item() - math.sin(angle)) < 1e-6


def test_apply_rope_rotates_pairs_as_complex_numbers() -> None:
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cos, sin = rope_table(2, 5, 8, 50.0, device=CPU)
    turn = torch.complex(cos.double(), sin.double())[:, None]
    expected = torch.complex(x[..., :4], x[..., 4:]) * turn
    y = apply_rope(x, cos, sin)
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, torch.cat([expected.real, expected.imag], dim=-1))


def test_apply_rope_keeps_the_dtype_of_the_input() -> None:
    cos, sin = rope_table(0, 2, 4, 10.0, device=CPU)
    assert apply_rope(torch.ones(1, 2, 1, 4, dtype=torch.bfloat16), cos, sin).dtype == torch.bfloat16


def test_apply_rope_with_a_short_table_leaves_the_last_features() -> None:
    x = torch.randn(2, 5, 3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    table = rope_table(2, 5, 4, 50.0, device=CPU, dtype=torch.float64)
    y = apply_rope(x, *table)
    assert torch.equal(y[..., 4:], x[..., 4:])
    torch.testing.assert_close(y[..., :4], apply_rope(x[..., :4], *table))
