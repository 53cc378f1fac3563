"""Freed memory is kept within the block and given back after it: seen by the pages that the system had to clear."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median

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


def test_freed_memory_is_kept_and_later_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    inside, after = json.loads(done.stdout)
    assert median(inside[4:]) < 100, "all but the rare step in which the heap, cut up as it is, grows by a piece"
    assert after > 10_000, "given back: the system clears them again"
