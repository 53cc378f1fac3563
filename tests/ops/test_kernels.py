"""Tests the rules by which a kernel of another package is chosen. Tensors are fake: no test here needs a GPU."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from importlib import metadata

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lmzoo.ops import kernels
from lmzoo.ops.cuda import fla
from lmzoo.ops.delta_rule import delta_rule
from lmzoo.ops.dispatch import Choice, watch
from lmzoo.ops.dplr import dplr
from lmzoo.ops.gated_delta_rule import gated_delta_rule
from lmzoo.ops.gated_linear_attention import gated_linear_attention
from lmzoo.ops.kernels import NO_KERNEL, SHORTEST, find_kernel, kernels_used, misfit
from tests.cases import each_case

BF16, F32, F64 = torch.bfloat16, torch.float32, torch.float64


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are installed and not turned off."""
    monkeypatch.setattr(kernels, "_INSTALLATION", "")


def fake_qkv(
    T: int = SHORTEST, K: int = 32, V: int = 64, device: str = "cuda", dtype: torch.dtype = BF16
) -> list[Tensor]:
    with FakeTensorMode():
        return [torch.empty(2, T, 3, width, device=device, dtype=dtype) for width in (K, K, V)]


@pytest.mark.usefixtures("installed")
def test_find_kernel_takes_one_for_bfloat16_on_a_gpu() -> None:
    for op, form in fla.KERNELS.items():
        found = find_kernel(op, *fake_qkv())
        assert found.form is form
        assert found.reason == "bfloat16, T >= 64: fla-core is installed"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_find_kernel_finds_none_on_other_devices(device: str) -> None:
    assert find_kernel("delta_rule", *fake_qkv(device=device)) == NO_KERNEL


@pytest.mark.usefixtures("installed")
def test_find_kernel_says_why_none_fits() -> None:
    assert find_kernel("delta_rule", *fake_qkv(T=SHORTEST - 1)) == (None, "no kernel: T < 64")
    found = find_kernel("delta_rule", *fake_qkv(dtype=F32))
    assert found == (None, "no kernel: it would compute in bfloat16, not float32")


def test_find_kernel_says_why_none_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_INSTALLATION", "no kernel: a reason")
    assert find_kernel("delta_rule", *fake_qkv()) == (None, "no kernel: a reason")


@pytest.mark.parametrize(
    ("dtypes", "fits"),
    [
        ([BF16, BF16, BF16], True),
        ([F32, F32, BF16], True),  # normalized keys under autocast
        ([BF16, BF16, F32], True),  # values times a step size under autocast
        ([F32, F32, F32], False),
        ([torch.float16] * 3, False),
        ([F64, BF16, BF16], False),
    ],
)
def test_misfit_wants_a_caller_that_computes_in_bfloat16(dtypes: list[torch.dtype], fits: bool) -> None:
    assert (not misfit(SHORTEST, 64, 64, dtypes)) is fits


@pytest.mark.parametrize(
    ("K", "V", "fits"),
    [
        (16, 256, True),
        (256, 16, True),
        (24, 40, True),
        (8, 64, False),
        (64, 264, False),
        (36, 64, False),
        (64, 65, False),
    ],
)
def test_misfit_knows_the_head_widths(K: int, V: int, fits: bool) -> None:
    expected = "" if fits else f"no kernel: head widths {K} and {V} must be multiples of 8 from 16 to 256"
    assert misfit(SHORTEST, K, V, [BF16]) == expected


def test_misfit_refuses_writes_that_reflect_the_memory() -> None:
    assert misfit(SHORTEST, 64, 64, [BF16], 1.0) == ""
    assert misfit(SHORTEST, 64, 64, [BF16], 2.0) == "no kernel: in bfloat16, beta up to 2 loses the memory"


@each_case("T", [1, SHORTEST])
@pytest.mark.parametrize("dtype", [BF16, F32])
def test_misfit_can_be_captured_whole(T: int, dtype: torch.dtype) -> None:
    """Or else a copy of a model for decoding on a GPU could not be compiled."""

    def double_misfits(x_BTHK: Tensor) -> Tensor:
        return 2 * x_BTHK if misfit(T, x_BTHK.shape[-1], 16, [x_BTHK.dtype]) else x_BTHK

    x_BTHK = torch.ones(1, T, 1, 16, dtype=dtype)
    captured = torch.compile(double_misfits, fullgraph=True, backend="eager")
    assert torch.equal(captured(x_BTHK), double_misfits(x_BTHK))


@pytest.mark.usefixtures("installed")
def test_find_kernel_is_asked_by_each_algorithm() -> None:
    seen: dict[str, object] = {}

    def look(choice: Choice, args: tuple[object, ...]) -> None:
        seen[choice.name] = choice.kernel.form
        raise StopIteration  # there is nothing to compute on

    q, k, v = fake_qkv(V=32)
    with FakeTensorMode():
        beta_BTH = torch.empty(2, SHORTEST, 3, device="cuda")
    for rule, args in (
        (partial(delta_rule, largest_beta=1.0), (q, k, v, beta_BTH)),
        (partial(gated_delta_rule, largest_beta=1.0), (q, k, v, beta_BTH, k)),
        (gated_linear_attention, (q, k, v, k)),
        (dplr, (q, k, k, v, k, k)),
    ):
        with watch(look), pytest.raises(StopIteration):
            rule(*args)
    assert seen == fla.KERNELS
    for rule, args in ((delta_rule, (q, k, v, beta_BTH)), (gated_delta_rule, (q, k, v, beta_BTH, k))):
        with watch(look), pytest.raises(StopIteration):
            rule(*args)  # beta may be above 1
    assert [seen["delta_rule"], seen["gated_delta_rule"]] == [None, None]


@pytest.mark.usefixtures("installed")
def test_kernels_used_names_package_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    assert kernels_used(torch.device("cuda")) == f"fla-core {metadata.version('fla-core')}"
    assert kernels_used(torch.device("cpu")) == "none"
    monkeypatch.setattr(kernels, "_INSTALLATION", "no kernel: a reason")
    assert kernels_used(torch.device("cuda")) == "none"


@pytest.mark.parametrize(
    ("triton", "version", "problem"),
    [
        (True, "0.6.0", ""),
        (True, "0.10", ""),
        (True, "1.0rc1", ""),
        (True, "0.5.9", "no kernel: fla-core 0.5.9 is older than 0.6"),
        (True, None, "no kernel: fla-core is not installed"),
        (False, "0.6.0", "no kernel: fla-core is not installed"),
    ],
)
def test_problem_wants_the_package_its_version_and_triton(
    monkeypatch: pytest.MonkeyPatch, triton: bool, version: str | None, problem: str
) -> None:
    def installed_version(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.delenv("LMZOO_NO_KERNELS", raising=False)
    monkeypatch.setattr(kernels, "find_spec", lambda name: object() if triton else None)
    monkeypatch.setattr(metadata, "version", installed_version)
    assert kernels._problem() == problem


def test_problem_obeys_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMZOO_NO_KERNELS", "1")
    assert kernels._problem() == "no kernel: LMZOO_NO_KERNELS is set"


def test_find_kernel_imports_nothing_on_a_cpu() -> None:
    script = (
        "import sys, torch; from lmzoo.ops.delta_rule import delta_rule; x = torch.ones(1, 64, 1, 16).bfloat16(); "
        "delta_rule(x, x, x, x[..., 0]); assert not {'fla', 'triton', 'lmzoo.ops.cuda.fla'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
