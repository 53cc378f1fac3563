"""What the machine is said to do is plausible, and is what was measured."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import torch

from lmzoo import machine


def test_read_bandwidth_is_that_of_a_machine() -> None:
    assert 1e7 < machine.read_bandwidth(1 << 22, repeats=2) < 1e13


def test_matrix_rate_is_the_best_of_its_shapes() -> None:
    small, large = (machine.matrix_rate(torch.float32, shape) for shape in ((2, 2, 2), (256, 256, 256)))
    assert 1e8 < large < 1e13
    assert small < large / 3
    both = machine.matrix_rate(torch.float32, (2, 2, 2), (256, 256, 256))
    assert both > 3 * small


def test_the_peak_is_that_of_the_work_alone() -> None:
    """What was held before, and what was given back in between, does not count. In a process of its own: here others
    may have left free memory in pieces, and then each of the three is taken from another piece.
    """
    code = """
        import torch
        from lmzoo import machine

        before = torch.ones(64 << 20, dtype=torch.uint8)

        def work():
            for _ in range(3):
                torch.ones(32 << 20, dtype=torch.uint8)

        print(machine.peak_resident(work))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    peak = done.stdout.strip()
    assert peak == "None" or 31 << 20 < int(peak) < 48 << 20  # the system counts in batches of pages
