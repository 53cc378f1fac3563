"""Tests a short form of scripts/fuzz in a process of its own, which has a limit of memory, and its verdicts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmzoo.errors import ConfigError
from tests.fuzz import areas
from tests.fuzz.watch import Case, Place, run
from tests.helpers import load_script

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz"


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=200)


@pytest.mark.stress
def test_fuzz_finds_no_broken_promise() -> None:
    done = fuzz("--cases", "200", "--seed", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    total = next(line.split() for line in done.stdout.splitlines() if line.startswith("all "))
    assert int(total[1]) >= 195
    assert min(int(total[2]), int(total[3])) > 20, "both good and bad input must be among the cases"


def test_fuzz_help_shows_examples_and_areas(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script("fuzz", monkeypatch)
    for argument, code in (("--help", 0), ("--case=3", 2)):
        monkeypatch.setattr(sys, "argv", ["fuzz", argument])
        with pytest.raises(SystemExit) as ended:
            script.main()
        assert ended.value.code == code
    text = " ".join(capsys.readouterr().out.split())
    assert "scripts/fuzz --area calls --case 123" in text
    assert all(area.shows in text for area in areas.AREAS.values())


def test_numbers_share_the_cases_among_the_areas() -> None:
    assert sum(area.share for area in areas.AREAS.values()) == 1000
    parts = [*areas.numbers("calls", 0, 700), *areas.numbers("calls", 700, 300)]
    assert parts == list(areas.numbers("calls", 0, 1000)) == list(range(areas.AREAS["calls"].share))


def read_pipe(place: Place) -> None:
    os.read(os.open(place.pipe, os.O_RDONLY | os.O_NONBLOCK), 5)


def replace_pipe(place: Place) -> None:
    place.pipe.unlink()
    place.pipe.touch()


def write_and_refuse(place: Place) -> None:
    (place.work / "left").touch()
    raise ConfigError("steps=0 must be a positive integer")


def refuse() -> None:
    raise ConfigError("steps=0 must be a positive integer")


def take_memory() -> None:
    raise MemoryError


def loop() -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("work", "outcome"),
    [
        (lambda place: None, "done"),
        (lambda place: refuse(), "refused"),
        (lambda place: 1 // 0, "traceback"),
        (lambda place: loop(), "hang"),
        (lambda place: take_memory(), "memory"),
        (read_pipe, "not regular"),
        (replace_pipe, "not regular"),
        (write_and_refuse, "written"),
    ],
)
def test_run_sees_each_broken_promise(tmp_path: Path, work: object, outcome: str) -> None:
    place = Place(tmp_path)
    assert callable(work)
    what, found, _ = run(lambda: Case("a case", lambda: work(place), seconds=1), place)
    assert (what, found) == ("a case", outcome)
