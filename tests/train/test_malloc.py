"""Tests, by counting page faults, that freed memory is kept within the block and returned to the system after it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from lmzoo.bench.train import bench_train
from lmzoo.cli.group import cli
from lmzoo.runs.run import make_spec, train_run
from lmzoo.train import malloc

# Runs in a new process, whose memory no other test has used.
CODE = """
import json, resource
import torch
import lmzoo
from lmzoo.train.malloc import keep_freed_memory

model = lmzoo.create_model("gpt2", vocab_size=65, d_model=256, n_layers=1, n_heads=4)
idx = torch.zeros(4, 256, dtype=torch.long)

def cleared():
    "Pages, in a step's forward and backward pass."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    model(idx, idx).loss.backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

cleared()
with keep_freed_memory():
    inside = [cleared() for _ in range(9)]
print(json.dumps([inside, cleared()]))
"""


@pytest.mark.timing
def test_keep_freed_memory_keeps_pages_and_returns_them_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    inside, after = json.loads(done.stdout)
    assert median(inside[4:]) < 100, "median: in rare steps the fragmented heap grows"
    assert after > 5_000, "returned to the system, which clears the pages again"


def test_keep_freed_memory_is_used_only_by_the_command_line(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[bool] = []
    monkeypatch.setattr(malloc, "give_back_memory", lambda: given_back.append(True))
    monkeypatch.setattr(bench_train, "__kwdefaults__", {**bench_train.__kwdefaults__, "block_seconds": 0.02})
    settings = {"context_length": 8, "batch_size": 2, "steps": 1}
    train_run(make_spec("bigram", str(text), overrides=settings), tmp_path / "run")
    assert given_back == []
    words = [f"--set={key}={value}" for key, value in settings.items()]
    place = ["--data", str(text), "--out"]
    for command, times in (
        (["train", "bigram", *place, str(tmp_path / "train"), *words], 1),
        (["compare", "bigram", *place, str(tmp_path / "compare"), *words], 1),
        (["probe", "bigram", "--probes=parity", "--out", str(tmp_path / "probe"), "--steps=1"], 1),
        (["bench", "train", "bigram", "--repeats=1", "--json", *words], 4),  # trainer and bare loop in two precisions
    ):
        given_back.clear()
        cli.main(command, standalone_mode=False)
        assert len(given_back) >= times, command
