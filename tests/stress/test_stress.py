"""Tests a reduced form of `scripts/stress` in new processes: the process of pytest cannot fork a trainer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import load_script
from tests.stress.parts import PARTS

SCRIPT = Path(__file__).parents[2] / "scripts" / "stress"
# Parts that share a process, to import torch once.
TOGETHER = [
    ["kills", "signals", "lock", "steps", "calls"],
    ["disk", "diverge", "memory", "hostile", "damage", "changes"],
    ["comparisons"],
]


def stress(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.stress
@pytest.mark.parametrize("names", TOGETHER, ids="-".join)
def test_stress_parts_find_no_failure(names: list[str], tmp_path: Path) -> None:
    chosen = [word for name in names for word in ("--part", name)]
    done = stress("--quick", "--json", str(tmp_path / "figures.json"), *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert list(figures) == names
    for name, figure in figures.items():
        assert figure["failures"] == []
        assert sum(figure["done"].values()) >= 2, f"{name} did too little: {figure}"


def test_stress_parts_are_all_tested() -> None:
    assert sorted(name for names in TOGETHER for name in names) == sorted(PARTS)


def test_stress_help_shows_examples_and_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script("stress", monkeypatch)
    for argument, code in (("--help", 0), ("--count=3", 2)):
        monkeypatch.setattr(sys, "argv", ["stress", argument])
        with pytest.raises(SystemExit) as ended:
            script.main()
        assert ended.value.code == code
    shown = capsys.readouterr()
    assert "scripts/stress --part kills --count 20" in shown.out
    assert all(part.shows in " ".join(shown.out.split()) for part in PARTS.values())
    assert "--count must be at least 1, and goes with one --part" in shown.err
