"""Mamba's mixer: decoding in pieces. tests/backbones/test_mamba.py compares it with another implementation."""

from __future__ import annotations

import pytest
import torch

from lmzoo.layers.mamba import Mamba, default_dt_rank
from lmzoo.ops.selective_scan import CHUNK_LENGTH
from tests.layers.decoded import in_one_call, in_pieces, perturbed, random


@pytest.mark.parametrize("lengths", [(CHUNK_LENGTH + 3, 1, 1, 2), (1,) * 3 + (CHUNK_LENGTH + 4,)])
def test_mamba_in_pieces_equals_one_call(lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(Mamba(6, d_state=3, d_conv=3)), random(2, CHUNK_LENGTH + 7, 6)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_mamba_declares_reach_growth_and_precision() -> None:
    layer = Mamba(6)
    assert (layer.reach, layer.state_growth) == (None, "constant")
    assert set(layer.keep_float32) <= dict(layer.named_parameters()).keys()
    assert layer.parameter_roles == {"dt_bias": "vector", "A_log": "vector", "D": "vector"}


def test_mamba_state_is_float32_in_a_bfloat16_model() -> None:
    state = Mamba(6).init_state(2, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert (state.tail.dtype, state.h.dtype) == (torch.bfloat16, torch.float32)


def test_default_dt_rank_rounds_up() -> None:
    assert [default_dt_rank(width) for width in (1, 16, 17)] == [1, 1, 2]
