"""Tests the measurements of the machine: plausible numbers, taken from the work that was given."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import pytest
import torch

from lmzoo import hardware
from lmzoo.errors import ConfigError


@pytest.mark.parametrize(("available", "kind"), [(True, "cuda"), (False, "cpu")])
def test_default_device_is_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch, available: bool, kind: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert hardware.default_device() == torch.device(kind)


def test_default_device_is_the_one_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for kind in ("cpu", "cuda"):
        monkeypatch.setenv(hardware.DEVICE, kind)
        assert hardware.default_device() == torch.device(kind)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    messages = {
        "cuda": "device='cuda' needs a GPU",
        "tpu": "device='tpu' must be 'cpu' or 'cuda'$",
        "mps": "device='mps' must be 'cpu' or 'cuda': the GPUs of Apple are not supported",
        "": "''",
    }
    for kind, message in messages.items():
        monkeypatch.setenv(hardware.DEVICE, kind)
        with pytest.raises(ConfigError, match=message):
            hardware.default_device()


@pytest.mark.timing
@pytest.mark.parametrize("feature", ["_is_amx_tile_supported", "_is_avx512_bf16_supported"])
def test_multiplies_bf16_by_either_instruction_of_a_cpu(monkeypatch: pytest.MonkeyPatch, feature: str) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert not hardware.multiplies_bf16(torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, feature, lambda: True)
    assert hardware.multiplies_bf16(torch.device("cpu"))
    assert not hardware.multiplies_bf16(torch.device("meta"))


def test_read_bandwidth_is_plausible() -> None:
    assert 1e7 < hardware.read_bandwidth(1 << 22, repeats=2) < 1e13


@pytest.mark.timing
def test_matrix_rate_is_the_best_of_its_shapes() -> None:
    small, large = (hardware.matrix_rate(torch.float32, shape) for shape in ((2, 2, 2), (256, 256, 256)))
    assert 1e8 < large < 1e13
    assert small < large / 3
    both = hardware.matrix_rate(torch.float32, (2, 2, 2), (256, 256, 256))
    assert both > 3 * small


def test_peak_resident_counts_the_work_alone() -> None:
    """Memory held before, and memory freed in between, does not count. Runs in a new process: here, fragmented free
    memory of other tests could make each of the three tensors use another fragment.
    """
    code = """
        import torch
        from lmzoo import hardware

        before = torch.ones(64 << 20, dtype=torch.uint8)

        def work():
            for _ in range(3):
                torch.ones(32 << 20, dtype=torch.uint8)

        print(hardware.peak_resident(work))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    peak = done.stdout.strip()
    assert peak == "None" or 31 << 20 < int(peak) < 48 << 20  # the system counts in batches of pages


def test_interleaved_runs_in_turns_after_a_warm_up_round() -> None:
    order: list[str] = []

    def slow_at_first() -> None:
        time.sleep(0.0 if order else 0.2)
        order.append("a")

    seconds = hardware.interleaved({"a": slow_at_first, "b": lambda: order.append("b")}, repeats=2)
    assert order == ["a", "b"] * 3
    assert seconds["a"] < 0.1
