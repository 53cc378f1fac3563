"""Tests the kernels of flash-linear-attention against the definitions, values and all gradients, on a GPU.

Both get the same inputs, rounded to bfloat16 where the kernels multiply. So what they may differ by is the rounding of
products and of memories within a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lmzoo
from lmzoo.compiling import compiled
from lmzoo.ops import kernels
from lmzoo.ops.cuda import fla
from lmzoo.ops.delta_rule import naive_delta_rule
from lmzoo.ops.dispatch import Choice, watch
from lmzoo.ops.dplr import naive_dplr
from lmzoo.ops.gated_delta_rule import naive_gated_delta_rule
from lmzoo.ops.gated_linear_attention import naive_gated_linear_attention
from lmzoo.ops.kernels import SHORTEST
from tests.cases import each_case
from tests.ops.scans import Scan, values_and_gradients

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Flash Attention is not installed:ImportWarning"),  # of fla
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),  # of torch
]

Decays = Callable[[Tensor], Tensor]  # makes logarithms of decays from uniform numbers


class Case(NamedTuple):
    """An algorithm with one kind of decays."""

    naive: Scan
    name: str  # of the kernel
    decays: int | None = None  # 1 for one per head, 0 for one per channel, None for none
    has_beta: bool = False

    @property
    def kernel(self) -> Scan:
        return fla.KERNELS[self.name]


CASES = {
    "delta": Case(naive_delta_rule, "delta_rule", has_beta=True),
    "gated_delta": Case(naive_gated_delta_rule, "gated_delta_rule", 1, has_beta=True),
    "kimi_delta": Case(naive_gated_delta_rule, "gated_delta_rule", 0, has_beta=True),
    "linear": Case(naive_gated_linear_attention, "gated_linear_attention"),
    "retention": Case(naive_gated_linear_attention, "gated_linear_attention", 1),
    "gated_linear": Case(naive_gated_linear_attention, "gated_linear_attention", 0),
    "dplr": Case(naive_dplr, "dplr", 0),
}
ALL = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
DECAYING = {name: case for name, case in CASES.items() if case.decays is not None}


def mixed(uniform: Tensor) -> Tensor:
    """No decay, almost none, and memories that are erased."""
    return torch.where(
        uniform < 0.4, 0.0, torch.where(uniform < 0.8, -1e-4, torch.where(uniform < 0.9, -1e4, -torch.inf))
    )


def make_inputs(
    case: Case, T: int, K: int = 64, V: int = 32, decays: Decays = lambda x: -4 * x**4, beta: float | None = None
) -> list[Tensor]:
    """Returns queries, unit keys, values, what else the algorithm takes, and a state last."""
    draw, B, H = torch.Generator().manual_seed(T), 2, 3

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    q, k, v = normal(B, T, H, K) / math.sqrt(K), F.normalize(normal(B, T, H, K), dim=-1), normal(B, T, H, V)
    low, wide = [q, k, v], [2 * torch.rand(B, T, H, generator=draw) if beta is None else torch.full((B, T, H), beta)]
    wide = wide if case.has_beta else []
    if case.decays is not None:
        wide.append(decays(torch.rand(B, T, H, case.decays or K, generator=draw)))
    q, k, v = (x.bfloat16().cuda() for x in low)
    inputs = [q, k, v, *(x.cuda() for x in wide), normal(B, H, K, V).cuda()]
    if case.naive is naive_dplr:
        b = (k * torch.rand(k.shape, generator=draw).cuda()).bfloat16()
        return [q, inputs[3], k, v, -k, b, inputs[4]]
    return inputs


def forms(case: Case) -> tuple[Scan, Scan]:
    """Returns the kernel and the definition, as functions of the inputs."""
    if case.naive is naive_gated_linear_attention and case.decays is None:
        return without_decays(case.kernel), without_decays(case.naive)
    return case.kernel, case.naive


def without_decays(scan: Scan) -> Scan:
    def without(q: Tensor, k: Tensor, v: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return scan(q, k, v, None, state)

    return without


def assert_near(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Assert that the norm of the difference is at most `tolerance` times the norm, for each tensor."""
    assert len(actual) == len(expected)
    for i, (got, want) in enumerate(zip(actual, expected, strict=True)):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        assert got.isfinite().all()
        distance, norm = (got.double() - want.double()).norm().item(), want.double().norm().item()
        assert distance <= tolerance * max(norm, 1e-3 * math.sqrt(want.numel())), f"{i}: {distance} of {norm}"


@ALL
@each_case("T", [SHORTEST, SHORTEST + 1, 4 * SHORTEST - 1])
@each_case("with_state", [False, True])
def test_kernel_is_the_definition(case: Case, T: int, with_state: bool) -> None:
    inputs, (kernel, naive) = make_inputs(case, T), forms(case)
    inputs = inputs if with_state else inputs[:-1]
    assert_near(values_and_gradients(kernel, inputs), values_and_gradients(naive, inputs), 1e-2)


@pytest.mark.parametrize("case", DECAYING.values(), ids=DECAYING)
@each_case("kind", ["none", "strong", "infinite", "mixed"])
def test_kernel_holds_at_extreme_decays(case: Case, kind: str) -> None:
    decays: dict[str, Decays] = {
        "none": torch.zeros_like,
        "strong": lambda x: torch.full_like(x, -1e4),
        "infinite": lambda x: torch.full_like(x, -torch.inf),
        "mixed": mixed,
    }
    inputs, (kernel, naive) = make_inputs(case, 2 * SHORTEST + 3, decays=decays[kind]), forms(case)
    assert_near(values_and_gradients(kernel, inputs), values_and_gradients(naive, inputs), 2e-2)


@pytest.mark.parametrize("name", ["delta", "gated_delta", "kimi_delta"])
@each_case("beta", [0.0, 1.0])  # no larger ones: see `misfit`
def test_kernel_holds_at_repeated_keys(name: str, beta: float) -> None:
    case = CASES[name]
    q, k, *others = make_inputs(case, 2 * SHORTEST + 3, beta=beta)
    inputs, (kernel, naive) = [q, k[:, :1].expand_as(k), *others], forms(case)
    assert_near(values_and_gradients(kernel, inputs), values_and_gradients(naive, inputs), 3e-2)


@ALL
@each_case("K, V", [(16, 24), (40, 16), (256, 128)])
def test_kernel_takes_the_widths_that_it_is_chosen_for(case: Case, K: int, V: int) -> None:
    inputs, (kernel, naive) = make_inputs(case, SHORTEST, K, V), forms(case)
    assert not kernels.misfit(SHORTEST, K, V, [torch.bfloat16])
    assert_near(values_and_gradients(kernel, inputs), values_and_gradients(naive, inputs), 1e-2)


@ALL
def test_kernel_in_two_calls_is_one_call(case: Case) -> None:
    *inputs, state = make_inputs(case, 2 * SHORTEST + 3)
    kernel, _ = forms(case)
    whole, last = kernel(*inputs, state)
    first, middle = kernel(*(x[:, :SHORTEST] for x in inputs), state)
    second, end = kernel(*(x[:, SHORTEST:] for x in inputs), middle)
    assert last.dtype == torch.float32
    assert_near([torch.cat([first, second], dim=1), end], [whole, last], 1e-2)


@ALL
def test_kernel_takes_mixed_dtypes_and_gives_the_same_bits_again(case: Case) -> None:
    inputs, (kernel, naive) = make_inputs(case, SHORTEST), forms(case)
    v = 3 if case.naive is naive_dplr else 2
    inputs[v] = inputs[v].float()
    actual, again = (values_and_gradients(kernel, inputs) for _ in range(2))
    assert actual[0].dtype == torch.float32
    assert_near(actual, values_and_gradients(naive, inputs), 1e-2)
    assert all(torch.equal(x, y) for x, y in zip(actual, again, strict=True))


MODELS = ("deltanet", "gated_deltanet", "kda", "retnet", "gla", "mamba2", "rwkv7")


def small(name: str) -> lmzoo.LanguageModel:
    """Returns a model on the GPU; no weight is zero, so that every gradient tells something."""
    settings = {"vocab_size": 31, "d_model": 128, "n_layers": 2, "context_length": 2 * SHORTEST}
    model, draw = lmzoo.create_model(name, **settings), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=draw))
    return model.to("cuda")


def loss_and_gradients(model: lmzoo.LanguageModel, **options: str) -> Tensor:
    """Returns the loss and then all gradients of a training step in bf16; `options` of torch.compile, if any."""
    idx_BT = torch.randint(31, (2, 2 * SHORTEST + 1), generator=torch.Generator().manual_seed(0)).cuda()
    call = compiled(model, **options) if options else model
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = call(idx_BT[:, :-1], idx_BT[:, 1:])[1]
    gradients = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    return torch.cat([x.detach().double().flatten() for x in (loss, *gradients)])


@pytest.mark.parametrize("name", MODELS)
def test_kernel_trains_a_model_like_the_forms_of_this_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = small(name), list[Choice]()
    with watch(lambda choice, _: seen.append(choice)):
        actual = loss_and_gradients(model)
    assert any(choice.kernel.form is not None for choice in seen), [choice.kernel.reason for choice in seen]
    monkeypatch.setattr(kernels, "_INSTALLATION", "turned off")
    expected = loss_and_gradients(model)
    assert abs(actual[0] - expected[0]) < 5e-3
    assert (actual - expected).norm() < 0.03 * expected.norm()


def test_kernel_breaks_the_graph_of_compiled_code() -> None:
    model = small("gated_deltanet")
    actual, expected = loss_and_gradients(model, backend="aot_eager"), loss_and_gradients(model)
    assert (actual - expected).norm() < 0.01 * expected.norm()
