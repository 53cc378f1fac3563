"""Tests the sLSTM's fast form against its definition, and the definition against the equations without a scale."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.slstm import ScalarMemory, fused_slstm, naive_slstm, slstm
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients


def make_inputs(T: int, dtype: torch.dtype = torch.float64, *, scale: float = 1.0, B: int = 2) -> list[Tensor]:
    """Returns gates times `scale`, a recurrent weight, and a memory."""
    draw, H, K = torch.Generator().manual_seed(T), 3, 4

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    h, c, m = (normal(B, H, K) for _ in range(3))
    n = 1 + normal(B, H, K).abs()
    inputs = (scale * normal(B, T, H, 4 * K), normal(H, 4 * K, K) / 2, h, c, n, m)
    return [x.to(dtype) for x in inputs]


def flat(form: object) -> object:
    """Returns the function with the memory as four tensors, in arguments; of the results without m, a constant."""

    def scan(gates: Tensor, weight: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        h, c, n, m = memory if memory else (None,) * 4
        state = None if m is None else ScalarMemory(h, c, n, m.detach())  # type: ignore[arg-type]
        y, last = form(gates, weight, state)  # type: ignore[operator]
        return y, *last[:3], *(() if m is None else (last.m + 0 * m,))

    return scan


def test_naive_slstm_is_the_equation_without_a_scale() -> None:
    gates, weight, *_ = make_inputs(9)
    y, _ = naive_slstm(gates, weight)
    h = c = n = torch.zeros(2, 3, 4, dtype=gates.dtype)
    for t in range(9):
        i, f, z, o = (gates[:, t] + torch.einsum("bhk,hgk->bhg", h, weight)).chunk(4, dim=-1)
        c, n = f.sigmoid() * c + i.exp() * z.tanh(), f.sigmoid() * n + i.exp()
        h = o.sigmoid() * c / n
        torch.testing.assert_close(y[:, t], h)


def test_naive_slstm_gradient_is_that_of_the_equation_without_a_scale() -> None:
    gates, weight, *_ = make_inputs(5)

    def unscaled(gates: Tensor, weight: Tensor) -> tuple[Tensor]:
        h = c = n = torch.zeros(2, 3, 4, dtype=gates.dtype)
        hs = []
        for gates_BHG in gates.unbind(1):
            i, f, z, o = (gates_BHG + torch.einsum("bhk,hgk->bhg", h, weight)).chunk(4, dim=-1)
            c, n = f.sigmoid() * c + i.exp() * z.tanh(), f.sigmoid() * n + i.exp()
            h = o.sigmoid() * c / n
            hs.append(h)
        return (torch.stack(hs, dim=1),)

    actual = values_and_gradients(lambda g, w: naive_slstm(g, w)[:1], [gates, weight])
    assert_same(actual, values_and_gradients(unscaled, [gates, weight]), 1e-10)


@each_case("T", [1, 2, 3, 20])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 5e-5)])
def test_fused_slstm_is_the_naive_one(T: int, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(T, dtype)
    for given in (inputs, inputs[:2]):
        actual = values_and_gradients(flat(fused_slstm), given)
        assert_same(actual, values_and_gradients(flat(naive_slstm), given), tolerance)


def test_fused_slstm_holds_at_extreme_gates() -> None:
    """Gates of order 300: closed, open, and with an exponential that overflows float32."""
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        inputs = make_inputs(20, dtype, scale=300.0)[:2]
        actual = values_and_gradients(flat(fused_slstm), inputs)
        assert all(x.isfinite().all() for x in actual)
        assert_same(actual, values_and_gradients(flat(naive_slstm), inputs), tolerance)


def test_slstm_in_two_calls_is_one_call() -> None:
    gates, weight, *_ = make_inputs(9)
    whole, last = slstm(gates, weight)
    first, middle = slstm(gates[:, :1], weight)
    second, end = slstm(gates[:, 1:], weight, middle)
    assert_same([torch.cat([first, second], dim=1), *end], [whole, *last], 1e-12)


@each_case("T", [1, 9])
def test_slstm_computes_bfloat16_inputs_in_float32_under_autocast_too(T: int) -> None:
    gates, weight, *_ = make_inputs(T, torch.float32)
    expected, last = naive_slstm(gates.bfloat16().float(), weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, memory = slstm(gates.bfloat16(), weight)
    assert (y.dtype, memory.c.dtype) == (torch.bfloat16, torch.float32)
    assert_same([*memory], [*last], 1e-5)
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16


def test_slstm_compiles_in_one_graph() -> None:
    inputs = make_inputs(9)[:2]
    compiled = torch.compile(flat(slstm), fullgraph=True, backend="aot_eager", dynamic=False)
    assert_same(values_and_gradients(compiled, inputs), values_and_gradients(flat(naive_slstm), inputs), 1e-10)


@each_case("T", [1, 9])
def test_slstm_counts_its_recurrent_products(T: int) -> None:
    gates, weight, *_ = make_inputs(T)
    with FlopCounter() as counter:
        slstm(gates, weight)
    assert counter.get_total_flops() == 2 * 2 * T * weight.numel()
