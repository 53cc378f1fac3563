"""Times the phases of a training step."""

from __future__ import annotations

import time

import torch

PHASES = ("data", "forward", "backward", "clip", "optimizer")


class PhaseClock:
    """Measures the seconds of each phase of one step; the first begins with the clock."""

    def __init__(self, device: torch.device, *, synchronize: bool = False) -> None:
        """Start the clock.

        With `synchronize`, `end` waits for the GPU; else GPU work counts in the phase in which the CPU waits for it.
        """
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._gpu = device if synchronize and device.type == "cuda" else None
        self._since = time.perf_counter()

    def end(self, phase: str) -> None:
        """Add the time since the last call to `phase`."""
        if self._gpu is not None:
            torch.cuda.synchronize(self._gpu)
        now = time.perf_counter()
        self.seconds[phase] += now - self._since
        self._since = now
