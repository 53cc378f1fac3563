"""Tests the fast forms of down- and upsampling against their definitions, by hand, and in pieces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.ops.dynamic_chunks import downsample, naive_downsample, naive_upsample, upsample
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients

LENGTHS = (1, 2, 3, 31, 32, 33, 70)


def make_inputs(T: int, dtype: torch.dtype = torch.float64, B: int = 3, D: int = 4) -> tuple[Tensor, list[Tensor]]:
    """Returns which tokens begin a chunk (in one row none, in one all), and tokens, outputs, probabilities, a value."""
    draw = torch.Generator().manual_seed(T)
    p_BT = torch.rand(B, T, generator=draw, dtype=torch.float64)
    p_BT[0], p_BT[1] = 0.4 * p_BT[0], 0.5 + 0.5 * p_BT[1]
    chosen_BT = p_BT >= 0.5
    M = max(1, int(chosen_BT.sum(1).max()))
    shapes = ((B, T, D), (B, M, D), (B, D))
    x, y, smoothed = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in shapes)
    return chosen_BT, [tensor.to(dtype) for tensor in (x, y, p_BT, smoothed)]


@each_case("T", LENGTHS)
@pytest.mark.parametrize("more", [0, 2])
def test_downsample_is_the_naive_one(T: int, more: int) -> None:
    chosen, (x, y, *_) = make_inputs(T + more)
    M = min(y.shape[1] + more, T + more)
    forms = [
        values_and_gradients(lambda x, form=form: [form(x, chosen, M)], [x]) for form in (downsample, naive_downsample)
    ]
    assert_same(forms[0], forms[1], 0)


@each_case("T", LENGTHS)
@each_case("with_state", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_upsample_is_the_naive_one(T: int, with_state: bool, dtype: torch.dtype, tolerance: float) -> None:
    chosen, (_, y, p, smoothed) = make_inputs(T, dtype)
    inputs = [y, p, smoothed] if with_state else [y, p]
    forms = [
        values_and_gradients(lambda y, p, s=None, form=form: form(y, p, chosen, s), inputs)
        for form in (upsample, naive_upsample)
    ]
    assert_same(forms[0], forms[1], tolerance)


@pytest.mark.parametrize("form", [upsample, naive_upsample])
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_upsample_holds_at_extreme_probabilities(form: object, p: float) -> None:
    """With p = 1 nothing of the chunks before is left."""
    chosen, (_, y, _, smoothed) = make_inputs(33, torch.float32)
    assert callable(form)
    out, last = form(y, torch.full(chosen.shape, p), chosen, smoothed)
    assert torch.equal(last[0], smoothed[0]), "no chunk begins in the first row"
    if p == 1:
        torch.testing.assert_close(out[1], y[1], atol=0, rtol=0)


@pytest.mark.parametrize("form", [upsample, naive_upsample])
def test_upsample_by_hand(form: object) -> None:
    """The second chunk is mixed with the first; the token between them has the value of the first."""
    y, p = torch.tensor([[[8.0], [4.0], [99.0]]]), torch.tensor([[1.0, 0.3, 0.75]])
    assert callable(form)
    out, last = form(y, p, torch.tensor([[True, False, True]]), torch.tensor([[50.0]]))
    assert out.flatten().tolist() == [8.0, 8.0, 5.0]
    assert last.item() == 5.0


def test_upsample_ignores_what_follows_the_last_chunk() -> None:
    chosen, (_, y, p, smoothed) = make_inputs(9)
    expected = upsample(y, p, chosen, smoothed)
    for b, count in enumerate(chosen.sum(1).tolist()):
        y[b, count:] = torch.nan
    assert_same(upsample(y, p, chosen, smoothed), expected, 0)


@each_case("cut", [1, 32, 69])
def test_upsample_in_two_calls_is_one_call(cut: int) -> None:
    chosen, (_, y, p, smoothed) = make_inputs(70)
    whole, last = upsample(y, p, chosen, smoothed)
    first, middle = upsample(y[:, :cut], p[:, :cut], chosen[:, :cut], smoothed)
    counts = chosen[:, :cut].sum(1)
    rest = torch.stack([torch.cat([y_MD[n:], y_MD[:n]]) for y_MD, n in zip(y, counts.tolist(), strict=True)])
    second, end = upsample(rest[:, : 70 - cut], p[:, cut:], chosen[:, cut:], middle)
    assert_same([torch.cat([first, second], dim=1), end], [whole, last], 1e-12)


def test_upsample_computes_bfloat16_inputs_in_float32() -> None:
    chosen, (_, y, p, smoothed) = make_inputs(33, torch.float32)
    expected = naive_upsample(y.bfloat16().float(), p, chosen, smoothed)
    assert_same(upsample(y.bfloat16(), p, chosen, smoothed), expected, 1e-6)
