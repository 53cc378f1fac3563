"""Tests the mLSTM's chunked form against its definition, and the definition against the equations without a scale."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from xlstm.blocks.mlstm.backends import parallel_stabilized_simple

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.mlstm import CHUNK_LENGTH as C
from lmzoo.ops.mlstm import SHORTEST_CHUNKED, MatrixMemory, chunked_mlstm, mlstm, naive_mlstm
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients

LENGTHS = (1, SHORTEST_CHUNKED, C - 1, C, C + 1, 2 * C + 3)


def make_inputs(
    T: int, dtype: torch.dtype = torch.float64, *, i: float | None = None, f: float | None = None, B: int = 2
) -> list[Tensor]:
    """Returns q, k, v, input gates, logs of forget gates (all equal to `i` and `f` if given), and a memory."""
    draw, H, K, V = torch.Generator().manual_seed(T), 3, 4, 5

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    q, k, v, i_BTH, log_f = normal(B, T, H, K), normal(B, T, H, K), normal(B, T, H, V), normal(B, T, H), normal(B, T, H)
    i_BTH = 2 * i_BTH if i is None else torch.full_like(i_BTH, i)
    log_f = F.logsigmoid(2 * log_f) if f is None else torch.full_like(log_f, f)
    return [x.to(dtype) for x in (q, k, v, i_BTH, log_f, normal(B, H, K, V + 1), normal(B, H))]


def flat(form: object) -> object:
    """Returns the function with the memory as two tensors, in arguments and results."""

    def scan(q: Tensor, k: Tensor, v: Tensor, i: Tensor, log_f: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        y, last = form(q, k, v, i, log_f, MatrixMemory(memory[0], memory[1].detach()) if memory else None)  # type: ignore[operator]
        return y, last.Cn, last.m.detach() + (0 * memory[1] if memory else 0)

    return scan


def test_naive_mlstm_is_the_equation_without_a_scale() -> None:
    q, k, v, i, log_f, *_ = make_inputs(7)
    y, _ = naive_mlstm(q, k, v, i, log_f)
    B, T, H, K = q.shape
    C_BHKV, n_BHK = torch.zeros(B, H, K, 5, dtype=q.dtype), torch.zeros(B, H, K, dtype=q.dtype)
    for t in range(T):
        keep, write = log_f[:, t].exp()[..., None], i[:, t].exp()[..., None]
        C_BHKV = keep[..., None] * C_BHKV + write[..., None] * torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        n_BHK = keep * n_BHK + write * k[:, t]
        largest = (n_BHK * q[:, t]).sum(-1).abs().clamp(min=1)
        want = torch.einsum("bhkv,bhk->bhv", C_BHKV, q[:, t]) / largest[..., None]
        torch.testing.assert_close(y[:, t], want, rtol=1e-5, atol=1e-5)  # EPS in the denominator


def test_mlstm_is_the_parallel_form_of_the_authors() -> None:
    """Values, and gradients but for the effect of EPS; the authors divide the keys by sqrt(K), and take no logs."""
    q, k, v, i, f, *_ = make_inputs(2 * C + 3)

    def theirs(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> tuple[Tensor]:
        q, k, v, i, f = (x.transpose(1, 2) for x in (q, k, v, i, f))
        return (parallel_stabilized_simple(q, k * q.shape[-1] ** 0.5, v, i[..., None], f[..., None]).transpose(1, 2),)

    def ours(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> tuple[Tensor]:
        return (mlstm(q, k, v, i, F.logsigmoid(f))[0],)

    actual, expected = (values_and_gradients(form, [q, k, v, i, f]) for form in (ours, theirs))
    assert_same(actual[:1], expected[:1], 1e-10)
    assert_same(actual[1:], expected[1:], 1e-5)


@each_case("T", LENGTHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-4)])
def test_chunked_mlstm_is_the_naive_one(T: int, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(T, dtype)
    for given in (inputs, inputs[:-2]):
        actual = values_and_gradients(flat(chunked_mlstm), given)
        assert_same(actual, values_and_gradients(flat(naive_mlstm), given), tolerance)


@pytest.mark.parametrize("f", [0.0, -1e-6, -60.0, -torch.inf])
@pytest.mark.parametrize("i", [0.0, 300.0, -300.0])
def test_chunked_mlstm_holds_at_extreme_gates(i: float, f: float) -> None:
    """Forget gates of 1 and 0, and input gates whose exponential overflows float32.

    With large input gates y is divided by |n . q| alone, which may be near 0: rounding is then amplified.
    """
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-2)):
        inputs = make_inputs(2 * C + 3, dtype, i=i, f=f)[:-2]
        actual = values_and_gradients(flat(chunked_mlstm), inputs)
        assert all(x.isfinite().all() for x in actual)
        assert_same(actual, values_and_gradients(flat(naive_mlstm), inputs), tolerance)


@each_case("cut", [1, C, C + 1])
def test_mlstm_in_two_calls_is_one_call(cut: int) -> None:
    inputs = make_inputs(2 * C + 3)[:-2]
    whole, last = mlstm(*inputs)
    first, middle = mlstm(*(x[:, :cut] for x in inputs))
    second, end = mlstm(*(x[:, cut:] for x in inputs), middle)
    assert_same([torch.cat([first, second], dim=1), *end], [whole, *last], 1e-12)


@each_case("T", [1, C + 3])
def test_mlstm_computes_bfloat16_inputs_in_float32_under_autocast_too(T: int) -> None:
    q, k, v, i, log_f, *_ = make_inputs(T, torch.float32)
    q, k, v = (x.bfloat16() for x in (q, k, v))
    expected, last = naive_mlstm(q.float(), k.float(), v.float(), i, log_f)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, memory = mlstm(q, k, v, i, log_f)
    assert (y.dtype, memory.Cn.dtype) == (torch.bfloat16, torch.float32)
    assert_same([*memory], [*last], 2e-5)
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16


def test_mlstm_compiles_in_one_graph() -> None:
    inputs = make_inputs(SHORTEST_CHUNKED)
    compiled = torch.compile(flat(mlstm), fullgraph=True, backend="aot_eager", dynamic=False)
    assert_same(values_and_gradients(compiled, inputs), values_and_gradients(flat(naive_mlstm), inputs), 1e-10)


@each_case("T", [1, C + 3])
def test_mlstm_counts_as_its_definition(T: int) -> None:
    with FlopCounter() as counter:
        mlstm(*make_inputs(T)[:-2])
    assert counter.get_total_flops() == 4 * 2 * T * 3 * 4 * (5 + 1)
