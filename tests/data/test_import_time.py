"""Importing lmzoo.data is fast: a command that only lists names must not wait for torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

_CODE = """
import sys, time
start = time.perf_counter()
import numpy
needed = time.perf_counter() - start
start = time.perf_counter()
import lmzoo.data
print((time.perf_counter() - start) / needed)
print([name for name in ("torch", "tokenizers", "urllib.request", "lmzoo.model") if name in sys.modules])
"""


@pytest.mark.timing
def test_import_of_data_is_fast_and_loads_nothing_heavy(process_env: dict[str, str]) -> None:
    command = [sys.executable, "-c", _CODE]
    runs = [
        subprocess.run(command, env=process_env, check=True, capture_output=True, text=True).stdout.splitlines()
        for _ in range(3)
    ]
    assert {loaded for _, loaded in runs} == {"[]"}
    assert min(float(ratio) for ratio, _ in runs) < 2  # torch takes 15 times as long as numpy
