"""This machine: what it is, how fast it reads memory and multiplies matrices, and how to time work on it.

A model's speed means little without these figures. Each is the best of several tries, so that a short burst of other
load on the machine does not lower it.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lmzoo import __version__

SQUARE = (2048, 2048, 2048)  # large enough for every processor to be at its best


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def read_bandwidth(nbytes: int = 1 << 30, repeats: int = 7) -> float:
    """Bytes per second that this machine's CPU reads from memory with torch's threads: the best of `repeats`.

    Measured as a sum of float32 numbers, which streams them once and writes nothing; torch's product of a matrix with a
    vector reads at 0.35 to 0.7 times that rate (docs/log.md). `nbytes` should be larger than the caches.
    """
    numbers_N = torch.ones(max(1, nbytes // 4))
    seconds = min(timed(numbers_N.sum) for _ in range(repeats))
    return numbers_N.numel() * 4 / seconds


def matrix_rate(
    dtype: torch.dtype,
    *shapes: tuple[int, int, int],
    device: torch.device | None = None,
    repeats: int = 7,
    seconds: float = 1.0,
) -> float:
    """FLOPs per second of a product of two matrices of `dtype`, (n, k) times (k, m) for `shapes` (n, k, m).

    The best of all shapes (`SQUARE` if none are given) and of `repeats` tries each; no more are begun once `seconds`
    have gone by, but each shape is tried once.
    """
    device = device or torch.device("cpu")
    best, began = 0.0, time.perf_counter()
    for n, k, m in shapes or (SQUARE,):
        left_NK = torch.ones(n, k, dtype=dtype, device=device)
        right_KM = torch.ones(m, k, dtype=dtype, device=device).t()  # as a linear layer holds its weight
        out_NM = torch.empty(n, m, dtype=dtype, device=device)

        def product(left: torch.Tensor = left_NK, right: torch.Tensor = right_KM, out: torch.Tensor = out_NM) -> None:
            torch.mm(left, right, out=out)
            if out.device.type == "cuda":
                torch.cuda.synchronize(out.device)

        for attempt in range(repeats + 1):
            if attempt > 1 and time.perf_counter() - began > seconds:
                break
            spent = timed(product)
            if attempt:  # the first makes the kernel ready
                best = max(best, 2.0 * n * k * m / spent)
    return best


def peak_resident(work: Callable[[], object]) -> int | None:
    """Bytes of memory that `work` took at its peak, above what the process held before; None where nobody says.

    Linux keeps the peak and lets it be set back, and counts to within some hundred kilobytes. What the allocator has
    kept for later is given back before.
    """
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    give_back_memory()
    try:
        clear.write_text("5")
        before = _kilobytes(status, "VmRSS")
        work()
        after = _kilobytes(status, "VmHWM")
    except OSError:
        return None
    return None if before is None or after is None else max(0, after - before) * 1024


def _kilobytes(status: Path, name: str) -> int | None:
    values = [line.split()[1] for line in status.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(values[0]) if values else None


def give_back_memory() -> None:
    """Give freed memory back to the system, where the C library is one that keeps it and can be asked."""
    import ctypes
    import gc

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def hardware(device: torch.device) -> dict[str, Any]:
    """`device` in words, the threads torch uses, and the processors of the machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{_processor()} (CPU)"
    return {"device": name, "threads": torch.get_num_threads(), "cores": os.cpu_count()}


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    return {
        "lmzoo": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def interleaved(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each, the median of `repeats` rounds in which each runs once, after a round to warm up."""
    durations: dict[str, list[float]] = {name: [] for name in works}
    for round_number in range(repeats + 1):
        for name, work in works.items():
            seconds = timed(work)
            if round_number:
                durations[name].append(seconds)
    return {name: median(values) for name, values in durations.items()}


def _processor() -> str:
    """The processor's name, from where the system keeps it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
