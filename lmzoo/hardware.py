"""Describes this machine, measures its memory bandwidth and matrix-product rate, and times work on it.

The speed of a model means little without these figures. Each is the best of several runs, to ignore transient load.
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
from lmzoo.errors import ConfigError

DEVICE = "LMZOO_DEVICE"  # environment variable: cpu or cuda, where models are trained and measured
SQUARE = (2048, 2048, 2048)  # large enough for every CPU and GPU to reach its best rate


def multiplies_bf16(device: torch.device) -> bool:
    """Return True if `device` has instructions for bf16 products; a CPU without them is 20 times slower in bf16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    features = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # torch has no public function for this yet
    return device.type == "cpu" and any(getattr(torch.cpu, feature, bool)() for feature in features)


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def read_bandwidth(nbytes: int = 1 << 30, repeats: int = 7) -> float:
    """Memory bandwidth in bytes per second, read by the CPU with torch's threads: the best of `repeats` runs.

    Measured by a sum of float32 numbers, which reads each number once and writes nothing; torch's product of a matrix
    with a vector reads at 0.35 to 0.7 times that rate (docs/log.md). `nbytes` should be larger than the CPU caches.
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
    """FLOPs per second of a product of two matrices of `dtype`, (n, k) times (k, m) for each (n, k, m) in `shapes`.

    Returns the best over all shapes (default: `SQUARE`) and over `repeats` runs of each. After `seconds` no further run
    begins, except the first of each shape.
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
            if attempt:  # the first run is a warm-up
                best = max(best, 2.0 * n * k * m / spent)
    return best


def peak_resident(work: Callable[[], object]) -> int | None:
    """Peak memory of `work` in bytes, above the memory of the process before; None where the system does not tell.

    Linux records the peak, allows a reset, and is accurate to some hundred kilobytes. Freed memory that the allocator
    kept is returned to the system before.
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
    """Return freed memory to the system, if the C library has `malloc_trim` (glibc)."""
    import ctypes
    import gc

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def default_device() -> torch.device:
    """Return the device on which models are trained and measured.

    It is the one that the environment variable LMZOO_DEVICE names, else the first GPU of this machine if there is one,
    else the CPU. Raises `ConfigError` for a device that this machine does not have.
    """
    named = os.environ.get(DEVICE)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu") if named is None else usable_device(named)


def usable_device(kind: str) -> torch.device:
    """Return the device of a kind, "cpu" or "cuda". Raises `ConfigError` for any other, or without a GPU."""
    if kind not in ("cpu", "cuda"):
        why = ": the GPUs of Apple are not supported, there was none to test on" if kind == "mps" else ""
        raise ConfigError(f"device={kind!r} must be 'cpu' or 'cuda'{why}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device='cuda' needs a GPU that torch can use, and it finds none here")
    return torch.device(kind)


def hardware(device: torch.device) -> dict[str, Any]:
    """Name of `device`, number of threads that torch uses, number of CPU cores of the machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{_processor()} (CPU)"
    return {"device": name, "threads": torch.get_num_threads(), "cores": os.cpu_count()}


def versions() -> dict[str, str]:
    """Versions of the software on which measured figures depend."""
    return {
        "lmzoo": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def interleaved(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each work over `repeats` rounds; each runs once per round, after one warm-up round."""
    durations: dict[str, list[float]] = {name: [] for name in works}
    for round_number in range(repeats + 1):
        for name, work in works.items():
            seconds = timed(work)
            if round_number:
                durations[name].append(seconds)
    return {name: median(values) for name, values in durations.items()}


def _processor() -> str:
    """Name of the CPU, from /proc/cpuinfo or the `platform` module."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
