"""Where the time of a training step goes."""

from __future__ import annotations

import time

import torch

PHASES = ("data", "forward", "backward", "clip", "optimizer")


class PhaseClock:
    """Measures the seconds of each phase of one step; the first begins with the clock."""

    def __init__(self, device: torch.device, *, synchronize: bool = False) -> None:
        """`synchronize` waits for a GPU at the end of each phase; else its work counts where the CPU waits for it."""
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._gpu = device if synchronize and device.type == "cuda" else None
        self._since = time.perf_counter()

    def end(self, phase: str) -> None:
        """Count the time since the last call as time of `phase`."""
        if self._gpu is not None:
            torch.cuda.synchronize(self._gpu)
        now = time.perf_counter()
        self.seconds[phase] += now - self._since
        self._since = now
