"""Tests how several processes are started, killed and stopped; a run that was killed resumes exactly."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lmzoo.distributed import launch
from lmzoo.errors import ConfigError
from lmzoo.runs.metrics import read_metrics
from lmzoo.storage import checkpoints
from tests.distributed.processes import Forks, Job, curve, environment, everything, torchrun
from tests.helpers import SMALL, assert_same

LONG = {**SMALL, "steps": 2000, "batch_size": 4, "eval_every": 2000, "eval_tokens": 64, "checkpoint_every": 20}
LONG |= {"warmup_steps": 2, "precision": "float32", "log_every": 1}


def start(command: list[str], run: Path, text: Path, *more: str, **settings: Any) -> subprocess.Popen[str]:
    """Start a long run by the command line, in the folder that will hold it."""
    words = [f"--set={key}={value}" for key, value in {**LONG, **settings}.items()]
    words = ["-m", "lmzoo", "train", "gpt2", "--data", str(text), "--out", str(run), "--resume", *more, *words]
    return subprocess.Popen(
        [*command, *words],
        cwd=run.parent,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(run: Path, step: int) -> None:
    """Wait until rank 0 has logged `step`."""
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        if (run / "metrics.jsonl").is_file() and any(line["step"] >= step for line in read_metrics(run)):
            return
        time.sleep(0.02)
    raise AssertionError(f"{run} never reached step {step}")


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes that a launcher has started, in the order of their ranks."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    environments = {int(pid): Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in children}
    numbers = {pid: next((v for v in values if v.startswith(b"RANK=")), None) for pid, values in environments.items()}
    return sorted((pid for pid, number in numbers.items() if number), key=lambda pid: numbers[pid] or b"")


@pytest.mark.distributed
def test_launch_stops_all_when_one_is_killed_and_resume_is_exact(tmp_path: Path, text: Path, forks: Forks) -> None:
    """In a folder with a module of the name of a package: it must not be imported."""
    (tmp_path / "pydantic.py").write_text("open('imported', 'w').close()\n")
    run, whole = tmp_path / "run", tmp_path / "whole"
    process = start([sys.executable, "-P"], run, text, "--nproc", "2", parallel="fsdp")
    wait_for_step(run, 25)
    victim = ranks_of(process)[1]
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert not (tmp_path / "imported").exists()
    assert process.returncode == 2
    *others, last = (line for line in errors.splitlines() if line.startswith("lmzoo: "))  # the rest is progress
    said = (
        rf"lmzoo: process 1 of the run \({victim}\) was killed by SIGKILL, and all have stopped: continue .* --resume"
    )
    assert re.fullmatch(said, last)
    assert all(
        line.startswith("lmzoo: another process of the run is gone") for line in others
    )  # if rank 0 prints in time
    assert len(others) <= 1
    reached = checkpoints.saved(run)[0][0]
    assert reached >= 20
    settings = {**LONG, "parallel": "fsdp"}
    job: Job = {"model": "gpt2", "data": str(text), "settings": settings, "stop_at": reached + 20}
    jobs = [{**job, "out": str(run), "resume": True}, {**job, "out": str(whole)}]
    stopped = f"stopped at {reached + 20}"
    assert forks.on_ranks(jobs, 2, tmp_path) == [[stopped, stopped]] * 2
    assert_same(everything(run, reached + 20), everything(whole, reached + 20))
    assert curve(run) == curve(whole)


@pytest.mark.distributed
def test_stop_request_on_one_rank_stops_all_after_the_same_step(tmp_path: Path, text: Path) -> None:
    run = tmp_path / "run"
    process = start(torchrun(2), run, text, checkpoint_every=2000)
    wait_for_step(run, 5)
    os.kill(ranks_of(process)[1], signal.SIGTERM)  # one rank alone gets the signal
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    said = re.findall(r"^lmzoo: (.*)$", errors, re.MULTILINE)
    (step,) = (step for step, _ in checkpoints.saved(run))
    assert len(said) <= 1  # torchrun kills rank 0 if the other rank ends first, perhaps before it prints
    expected = f"stopped after step {step}, saved in {checkpoints.path_of(run, step)}"
    assert all(line.startswith(expected) for line in said)
    assert read_metrics(run)[-1]["step"] == step


def test_without_nproc_removes_the_option() -> None:
    for given in (["--nproc", "2"], ["--nproc=2"]):
        assert launch.without_nproc(["train", "gpt2", *given, "--resume"]) == ["train", "gpt2", "--resume"]


def test_require_processes_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    launch.require_processes(2, 4)
    with pytest.raises(ConfigError, match=f"nproc=1000000 must be at most {launch.PER_CORE} for each CPU core"):
        launch.require_processes(10**6, 10**6)
    with pytest.raises(ConfigError, match="batch_size=3 must be divisible by nproc=2"):
        launch.require_processes(2, 3)
