"""A run that stops, however it stops, and goes on ends with the same bits as one that never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lmzoo import config as configs
from lmzoo import saving
from lmzoo.errors import CheckpointError
from lmzoo.train.events import CheckpointEvent, Event, NoteEvent, StepEvent
from lmzoo.train.interrupt import Interrupted
from lmzoo.train.metrics import read_metrics
from lmzoo.train.run import RunSpec, load_run, train_run

from .conftest import TEXT, assert_same, tensors

MakeSpec = Callable[..., RunSpec]


def interrupt_at(step: int) -> Callable[[Event], None]:
    """A listener that sends this process Ctrl-C during `step`."""

    def listen(event: Event) -> None:
        if isinstance(event, StepEvent) and event.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return listen


def losses(run: Path) -> list[tuple[int, str, float]]:
    return [(line["step"], line["split"], line["loss"]) for line in read_metrics(run)]


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.2},
        {"grad_accumulation": 3, "schedule": "wsd"},
        {"precision": "bf16"},
        {"optimizer": "muon", "schedule": "linear"},
    ],
)
def test_interrupted_at_any_step_ends_the_same(
    tmp_path: Path, small_spec: MakeSpec, settings: dict[str, object]
) -> None:
    spec = small_spec(**settings)
    train_run(spec, tmp_path / "whole")
    for step in (1, 4, 7, 11):
        run = tmp_path / f"stopped-{step}"
        with pytest.raises(Interrupted, match=f"stopped after step {step}, saved in .*; go on .* --resume"):
            train_run(spec, run, listeners=[interrupt_at(step)])
        assert saving.checkpoints(run)[0][0] == step
        train_run(spec, run, resume=True)
        assert_same(tensors(run, 12), tensors(tmp_path / "whole", 12))
        assert losses(run) == losses(tmp_path / "whole")


def test_across_an_epoch_and_twice(tmp_path: Path, small_spec: MakeSpec, text: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text(TEXT[:700], encoding="utf-8")  # some 39 windows: an epoch ends within a batch
    spec = RunSpec(model="bigram", data=str(short), config=dict(small_spec("bigram").config), train=small_spec().train)
    train_run(spec, tmp_path / "whole")
    for step in (3, 6):
        with pytest.raises(Interrupted):
            train_run(spec, tmp_path / "run", resume=True, listeners=[interrupt_at(step)])
    train_run(spec, tmp_path / "run", resume=True)
    assert_same(tensors(tmp_path / "run", 12), tensors(tmp_path / "whole", 12))


def test_a_damaged_newest_checkpoint_is_passed_over_and_said(tmp_path: Path, small_spec: MakeSpec) -> None:
    spec = small_spec()
    train_run(spec, tmp_path / "whole")
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train_run(spec, run, listeners=[interrupt_at(6)])
    file = saving.checkpoint_path(run, 6) / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[-9] ^= 4
    file.write_bytes(content)
    with pytest.warns(saving.DamagedCheckpointWarning, match=r"optimizer.safetensors: its SHA-256 .*-00000004 is used"):
        load_run(run)
    notes: list[str] = []
    train_run(
        spec, run, resume=True, listeners=[lambda e: notes.append(e.message) if isinstance(e, NoteEvent) else None]
    )
    assert len(notes) == 1
    assert "set aside as damaged-step-00000006; training goes on from step 4" in notes[0]
    assert_same(tensors(run, 12), tensors(tmp_path / "whole", 12))
    assert losses(run) == losses(tmp_path / "whole")


def test_all_checkpoints_damaged(tmp_path: Path, small_spec: MakeSpec) -> None:
    train_run(small_spec(), tmp_path / "run")
    for _, folder in saving.checkpoints(tmp_path / "run"):
        (folder / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"step-00000012/manifest.json: is not JSON"):
        load_run(tmp_path / "run")


def test_the_newest_and_the_best_are_kept(tmp_path: Path, small_spec: MakeSpec) -> None:
    rising = {"learning_rate": 1.0, "schedule": "constant", "warmup_steps": 0}  # the best comes first
    spec = small_spec("bigram", keep_checkpoints=1, checkpoint_every=2, **rising)
    saved: list[int] = []
    train_run(
        spec, tmp_path / "run", listeners=[lambda e: saved.append(e.step) if isinstance(e, CheckpointEvent) else None]
    )
    assert saved == [2, 4, 6, 8, 10, 12]
    val = {line["step"]: line["loss"] for line in read_metrics(tmp_path / "run") if line["split"] == "val"}
    best = min(val, key=val.__getitem__)
    assert best == 4
    assert {step for step, _ in saving.checkpoints(tmp_path / "run")} == {12, best}


SETTINGS = {"steps": 60, "eval_every": 60, "eval_tokens": 64, "keep_checkpoints": 3}
PROGRAM = """
import json, sys
import torch
from lmzoo.train.events import StepEvent
from lmzoo.train.interrupt import Interrupted
from lmzoo.train.run import make_spec, train_run

torch.set_num_threads(1)
text, run, settings = sys.argv[1:]
try:
    train_run(make_spec("gpt2", text, overrides=json.loads(settings)), run, resume=True,
              listeners=[lambda event: isinstance(event, StepEvent) and print(event.step, flush=True)])
except Interrupted as stop:
    sys.exit(str(stop))
"""


def start(run: Path, spec: RunSpec) -> subprocess.Popen[str]:
    """Train in another process, which prints each step that it has done."""
    settings = {
        **spec.config,
        **{name: value for name, value in configs.to_dict(spec.train).items() if value is not None},
    }
    command = [sys.executable, "-c", PROGRAM, spec.data, str(run), json.dumps(settings)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], steps: int) -> int:
    """Let it print `steps` lines; the last step it told of."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(steps)]
    return int(lines[-1])


def test_sigterm(tmp_path: Path, small_spec: MakeSpec) -> None:
    spec = small_spec(**SETTINGS)
    train_run(spec, tmp_path / "whole")
    process = start(tmp_path / "run", spec)
    wait_for(process, 20)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("stopped after step ")
    assert errors.count("\n") == 1
    train_run(spec, tmp_path / "run", resume=True)
    assert_same(tensors(tmp_path / "run", 60), tensors(tmp_path / "whole", 60))


def test_sigkill_at_any_time_loses_no_committed_step(tmp_path: Path, small_spec: MakeSpec) -> None:
    """Saving at every step, so that most of the kills come in the middle of it."""
    spec = small_spec(**SETTINGS, checkpoint_every=1)
    train_run(spec, tmp_path / "whole")
    run, reached = tmp_path / "run", 0
    for kill in range(2):
        process = start(run, spec)
        step = wait_for(process, 6)
        time.sleep(0.004 * kill)
        process.kill()
        process.communicate(timeout=60)
        committed = saving.find_checkpoint(run).json("training.json")["step"]  # fails on a half-written one
        assert reached < step - 1 <= committed
        reached = committed
    train_run(spec, run, resume=True)
    assert_same(tensors(run, 60), tensors(tmp_path / "whole", 60))
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")] == []
