"""A reduced form of `scripts/stress`, part by part, in processes of its own: pytest's cannot fork a trainer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .parts import PARTS

SCRIPT = Path(__file__).parents[2] / "scripts" / "stress"
# What shares a process, and so the seconds in which torch is imported.
TOGETHER = [
    ["kills", "signals", "lock"],
    ["steps", "calls", "damage", "changes"],
    ["disk", "diverge", "memory", "hostile"],
]


def stress(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.stress
@pytest.mark.parametrize("names", TOGETHER, ids="-".join)
def test_every_promise_holds(names: list[str], tmp_path: Path) -> None:
    chosen = [word for name in names for word in ("--part", name)]
    done = stress("--quick", "--json", str(tmp_path / "figures.json"), *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert list(figures) == names
    for name, figure in figures.items():
        assert figure["failures"] == []
        assert sum(figure["done"].values()) >= 3, f"{name} did next to nothing: {figure}"


def test_every_part_is_tested() -> None:
    assert sorted(name for names in TOGETHER for name in names) == sorted(PARTS)


def test_the_script_says_how_it_is_used() -> None:
    text = stress("--help").stdout
    assert "scripts/stress --part kills --count 20" in text
    assert all(part.shows in " ".join(text.split()) for part in PARTS.values())
    wrong = stress("--count", "3")
    assert wrong.returncode == 2
    assert "--count must be at least 1, and goes with one --part" in wrong.stderr
