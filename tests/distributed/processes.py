"""Starts several processes that train, and compares the runs that they made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from lmzoo.runs.metrics import read_metrics
from lmzoo.storage import checkpoints, safetensors
from tests.helpers import tensors

PROGRAM = Path(__file__).with_name("programs.py")
TOLERANCE = 1e-5  # of losses, for sums in another order

Job = dict[str, Any]


def environment() -> dict[str, str]:
    """Return an environment with one thread, and communication over the loopback interface only."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def on_ranks(jobs: list[Job], world_size: int, folder: Path) -> list[list[str]]:
    """Train `jobs` on `world_size` processes; return the outcome of each job, for each rank."""
    file = write_jobs(jobs, world_size, folder)
    command = [*torchrun(world_size), str(PROGRAM), str(file)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return outcomes(file, world_size)


def write_jobs(jobs: list[Job], world_size: int, folder: Path) -> Path:
    file = folder / f"jobs-{world_size}-{time.monotonic_ns()}.json"
    file.write_text(json.dumps(jobs), encoding="utf-8")
    return file


def outcomes(file: Path, world_size: int) -> list[list[str]]:
    return [json.loads(file.with_suffix(f".{rank}").read_text()) for rank in range(world_size)]


class Forks:
    """A process that has imported torch, and forks ranks from itself."""

    def __init__(self, errors: Path, variables: dict[str, str]) -> None:
        self._errors = errors
        with errors.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM)],
                env=environment() | variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )

    def on_ranks(self, jobs: list[Job], world_size: int, folder: Path) -> list[list[str]]:
        """Do the same as `on_ranks`, except that all ranks have the same order of sets: they are forks."""
        file = write_jobs(jobs, world_size, folder)
        self.run(file, world_size)
        return outcomes(file, world_size)

    def run(self, file: Path, world_size: int) -> None:
        """Run a file of jobs, or a program, on `world_size` ranks."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(world_size, file, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "done\n", self._errors.read_text()

    def close(self) -> None:
        self._process.communicate(timeout=20)


def torchrun(world_size: int) -> list[str]:
    """Return the command of torch's launcher, on the loopback interface."""
    place = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--local-addr", "localhost"]
    return [sys.executable, "-m", "torch.distributed.run", *place, "--nproc-per-node", str(world_size)]


def curve(run: Path) -> list[tuple[int, str, float]]:
    return [(line["step"], line["split"], line["loss"]) for line in read_metrics(run)]


def difference(run: Path, other: Path) -> float:
    """Return the largest difference between two loss curves, which must have the same points."""
    ours, theirs = curve(run), curve(other)
    assert [point[:2] for point in ours] == [point[:2] for point in theirs]
    return max(abs(a[2] - b[2]) for a, b in zip(ours, theirs, strict=True))


def copy_until(run: Path, new: Path, step: int) -> None:
    """Copy a run as if it had been killed after the checkpoint of `step`."""
    shutil.copytree(run, new)
    for number, folder in checkpoints.saved(new):
        if number > step:
            shutil.rmtree(folder)


def everything(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Return `tensors`, and the tensors in shards."""
    found = tensors(run, step)
    for file in sorted(checkpoints.path_of(run, step).glob("shard-*")):
        with safetensors.open_tensors(file) as shard:
            found |= {f"{file.name if shard.shapes[key] else ''}:{key}": shard.tensor(key) for key in shard.shapes}
    return found
