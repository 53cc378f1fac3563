"""Freed memory is kept within the block and given back after it: seen by the pages that the system had to clear."""

from __future__ import annotations

import json
import subprocess
import sys

# More than glibc ever keeps by itself, in a process whose memory nobody has used before.
CODE = """
import json, resource
import torch
from lmzoo.train.allocator import keep_freed_memory

SIZE = 256 << 20

def cleared():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(SIZE, dtype=torch.uint8).fill_(1)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / SIZE

outside = [cleared() for _ in range(3)]
with keep_freed_memory():
    inside = [cleared() for _ in range(6)]
print(json.dumps([outside, inside, cleared()]))
"""


def test_freed_memory_is_kept_and_later_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    outside, inside, after = json.loads(done.stdout)
    assert min(outside) > 0.5
    assert sum(share < 0.1 for share in inside) >= 2, "not each time: small things may come to lie in between"
    assert after > 0.5
