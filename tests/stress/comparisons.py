"""Sends SIGKILL to a comparison with two workers at random times: started again, it ends with the same results.

Half of the time the whole process group is killed, else the command alone, whose workers then save and end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.compare.small import written
from tests.stress.bench import Bench, Tally

NAMES = ("bigram", "lstm")
# Most of the time goes into the start of processes and into results, so that longer runs would add few states to kill.
SETTINGS = {"steps": 60, "batch_size": 4, "context_length": 16, "eval_every": 20, "checkpoint_every": 10}
RATES = "0.1,0.333"  # one less and one more are tried too: the best is the first of lstm and the last of bigram
SIZES = {"d_model": 8, "n_layers": 1}


def comparisons(bench: Bench, count: int) -> Tally:
    """Kill comparisons `count` times, and compare each that ends with one that was not disturbed."""
    tally = Tally()
    began = time.monotonic()
    expected, _ = _start(bench, bench.place("comparison"), None)
    life = time.monotonic() - began
    place = bench.place("comparison")
    killed = 0
    while killed < count:
        group = bench.random.random() < 0.5
        found, error = _start(bench, place, (bench.random.random() * life, group))
        if found is None and not error:
            killed += 1
            tally.done[f"kills of {'all processes' if group else 'the command alone'}"] += 1
            bench.progress(f"comparisons: {killed} of {count} kills")
            continue
        _check(tally, found, error, expected)
        shutil.rmtree(place, ignore_errors=True)
        place = bench.place("comparison")
    _check(tally, *_start(bench, place, None), expected)
    return tally


def _start(bench: Bench, out: Path, kill: tuple[float, bool] | None) -> tuple[Any, str]:
    """Start or continue a comparison, and kill it after some seconds; return its results if it ended, and its error."""
    settings = [f"--set={name}={value}" for name, value in (SETTINGS | SIZES).items()]
    options = ["--data", str(bench.text), "--out", str(out), "--tune", f"learning_rate={RATES}", "--seeds", "2"]
    command = [sys.executable, "-m", "lmzoo", "compare", *NAMES, *options, "--workers", "2", *settings]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True) as child:
        try:
            _, error = child.communicate(timeout=None if kill is None else kill[0])
        except subprocess.TimeoutExpired:
            assert kill is not None
            _kill(child.pid, all_of_them=kill[1])
            child.communicate()
            return None, ""
    if child.returncode:
        return None, f"ended with {child.returncode}: {error.decode()[-500:]}"
    return written(out), ""


def _kill(pid: int, *, all_of_them: bool) -> None:
    """Kill a command, and its descendants too: each worker has a process group of its own."""
    found = [pid, *(_descendants(pid) if all_of_them else ())]
    for each in found:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:  # it ended in the meantime
            continue


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(found for child in children for found in _descendants(child))]


def _check(tally: Tally, found: Any, error: str, expected: Any) -> None:
    same = found is not None and found == expected
    tally.check(same, f"comparison: {error or 'the results differ from those of the undisturbed one'}")
    tally.done["comparisons that ended as the undisturbed one"] += same
