"""Timing several pieces of work fairly: in turns within one process, so that a busy moment strikes all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

from lmzoo.machine import timed


def interleaved(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each, the median of `repeats` rounds in which each runs once, after a round to warm up."""
    durations: dict[str, list[float]] = {name: [] for name in works}
    for round_number in range(repeats + 1):
        for name, work in works.items():
            seconds = timed(work)
            if round_number:
                durations[name].append(seconds)
    return {name: median(values) for name, values in durations.items()}
