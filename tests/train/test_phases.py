"""Tests the clock of the phases of a training step."""

from __future__ import annotations

import time

import pytest
import torch

from lmzoo.train.phases import PHASES, PhaseClock


@pytest.mark.timing
def test_phase_clock_counts_the_time_since_the_last_phase() -> None:
    began = time.perf_counter()
    clock = PhaseClock(torch.device("cpu"), synchronize=True)
    clock.end("data")
    for _ in range(2):  # a phase may come more than once, with gradient accumulation
        time.sleep(0.02)
        clock.end("forward")
        clock.end("backward")
    assert tuple(clock.seconds) == PHASES
    assert clock.seconds["forward"] >= 0.04 > clock.seconds["backward"]
    assert clock.seconds["clip"] == clock.seconds["optimizer"] == 0
    assert sum(clock.seconds.values()) <= time.perf_counter() - began
    with pytest.raises(KeyError):
        clock.end("lunch")
