"""Freed memory is kept within the block and given back after it: seen by the pages that the system had to clear."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from lmzoo.cli.group import cli
from lmzoo.runs.run import make_spec, train_run
from lmzoo.train import malloc

# In a process whose memory nobody has used before.
CODE = """
import json, resource
import torch
import lmzoo
from lmzoo.train.malloc import keep_freed_memory

model = lmzoo.create_model("gpt2", vocab_size=65, d_model=384, n_layers=2, n_heads=6)
idx = torch.zeros(16, 256, dtype=torch.long)

def cleared():
    "Pages, in a step's forward and backward pass."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    model(idx, idx).loss.backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

cleared()
with keep_freed_memory():
    inside = [cleared() for _ in range(12)]
print(json.dumps([inside, cleared()]))
"""


@pytest.mark.timing
def test_freed_memory_is_kept_and_later_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    inside, after = json.loads(done.stdout)
    assert median(inside[4:]) < 100, "all but the rare step in which the heap, cut up as it is, grows by a piece"
    assert after > 10_000, "given back: the system clears them again"


def test_keep_freed_memory_is_used_by_the_command_line_alone(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[bool] = []
    monkeypatch.setattr(malloc, "give_back_memory", lambda: given_back.append(True))
    settings = {"context_length": 8, "batch_size": 2, "steps": 1}
    train_run(make_spec("bigram", str(text), overrides=settings), tmp_path / "run")
    assert given_back == []
    words = [f"--set={key}={value}" for key, value in settings.items()]
    place = ["--data", str(text), "--out"]
    for command, times in (
        (["train", "bigram", *place, str(tmp_path / "train"), *words], 1),
        (["compare", "bigram", *place, str(tmp_path / "compare"), *words], 1),
        (["bench", "train", "bigram", "--repeats=1", "--json", *words], 4),  # trainer and bare loop in two precisions
    ):
        given_back.clear()
        cli.main(command, standalone_mode=False)
        assert len(given_back) >= times, command
