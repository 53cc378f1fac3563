"""Chooses kernels of flash-linear-attention (package `fla-core`) for sequence algorithms on a GPU, where they fit.

Yang & Zhang 2024, https://github.com/fla-org/flash-linear-attention. The Triton kernels multiply matrices in bfloat16
and add in float32; the forms of this package convert to float32 first. So a kernel is chosen only for a caller that
computes in bfloat16 already: the queries, keys or values have this dtype, as under autocast. Float32 is left to the
forms of this package: the kernels would round it to TF32, which has three digits.

A delta rule with beta above 1 reflects the memory, by eigenvalues down to -1. Under one key, rounded to bfloat16, many
reflections in a row lose it, or let it grow: such rules take no kernel.

The choice depends on device, dtypes, shapes and installed packages, never on a measurement. `LMZOO_NO_KERNELS` in the
environment turns it off. Both are read when this module is imported, so that compiled code sees constants.

Legend: B batch, T time, H heads, K key width, V value width.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

PACKAGE, OLDEST = "fla-core", (0, 6)
SHORTEST = 64  # the kernels compute whole chunks of 64 positions
NARROWEST, WIDEST, STEP = 16, 256, 8  # of keys and values: a tensor core multiplies 16 numbers, a program holds 256


class Kernel(NamedTuple):
    """A form of an algorithm by another package; None with the reason why there is none for a call."""

    form: Callable[..., Any] | None = None
    reason: str = ""  # empty on devices without such kernels


NO_KERNEL = Kernel()


def find_kernel(op: str, q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, *, largest_beta: float = 1.0) -> Kernel:
    """Returns the kernel for a call of the algorithm `op` with these queries, keys and values.

    `largest_beta` is an upper bound of the write strengths of a delta rule.
    """
    if v_BTHV.device.type != "cuda":
        return NO_KERNEL
    dtypes = [x.dtype for x in (q_BTHK, k_BTHK, v_BTHV)]
    objection = _INSTALLATION or misfit(v_BTHV.shape[1], k_BTHK.shape[-1], v_BTHV.shape[-1], dtypes, largest_beta)
    if objection:
        return Kernel(None, objection)
    from lmzoo.ops.cuda.fla import KERNELS

    return Kernel(KERNELS[op], f"bfloat16, T >= {SHORTEST}: {PACKAGE} is installed")


def misfit(T: int, K: int, V: int, dtypes: list[torch.dtype], largest_beta: float = 1.0) -> str:
    """Returns why no kernel fits such a call; an empty text if one does."""
    if torch.bfloat16 not in dtypes or torch.float64 in dtypes:
        return f"no kernel: it would compute in bfloat16, not {_name(max(dtypes, key=lambda dtype: dtype.itemsize))}"
    if largest_beta > 1:
        return f"no kernel: in bfloat16, beta up to {largest_beta:g} loses the memory"
    if T < SHORTEST:
        return f"no kernel: T < {SHORTEST}"
    if any(width % STEP or not NARROWEST <= width <= WIDEST for width in (K, V)):
        rule = f"multiples of {STEP} from {NARROWEST} to {WIDEST}"
        return f"no kernel: head widths {K} and {V} must be {rule}"
    return ""


def kernels_used(device: torch.device) -> str:
    """Returns the package and version of the kernels that a run on `device` may use, or "none"."""
    return "none" if _INSTALLATION or device.type != "cuda" else f"{PACKAGE} {_version()}"


def _version() -> str | None:
    """Returns the installed version, or None without the package or without triton, which it needs."""
    try:
        return metadata.version(PACKAGE) if find_spec("triton") else None
    except metadata.PackageNotFoundError:
        return None


def _problem() -> str:
    """Returns why no kernel can be used in this process; an empty text if they can."""
    if os.environ.get("LMZOO_NO_KERNELS"):
        return "no kernel: LMZOO_NO_KERNELS is set"
    version = _version()
    if version is None:
        return f"no kernel: {PACKAGE} is not installed"
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < OLDEST:
        return f"no kernel: {PACKAGE} {version} is older than {'.'.join(map(str, OLDEST))}"
    return ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


_INSTALLATION = _problem()
