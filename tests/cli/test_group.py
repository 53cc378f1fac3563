"""Tests the command line as a whole: examples in the help texts, exit codes, one line for bad input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lmzoo import cli
from lmzoo.cli import group
from lmzoo.train.signals import Interrupted
from tests.cli.commands import Command


def test_help_of_every_command_shows_an_example(lmzoo: Command) -> None:
    assert set(cli.cli.commands) == {
        "list",
        "show",
        "train",
        "sample",
        "eval",
        "inspect",
        "compare",
        "probe",
        "reproduce",
        "report",
        "check",
        "data",
        "bench",
        "completion",
        "new",
        "import",
        "export",
        "push",
        "gguf",
        "lm-eval",
        "transplant",
        "puzzle",
    }
    for name in cli.cli.commands:
        result = lmzoo(name, "--help")
        assert result.code == 0
        assert f"  lmzoo {name} " in result.out or f"  lmzoo {name}\n" in result.out, f"{name} --help shows no example"


@pytest.mark.parametrize("group", [[], ["bench"], ["data"]])
def test_help_of_a_group_cuts_no_line_at_80_columns(
    lmzoo: Command, monkeypatch: pytest.MonkeyPatch, group: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands = lmzoo(*group, "--help").out.partition("Commands:\n")[2]
    assert commands
    assert "..." not in commands


@pytest.mark.parametrize("group", [[], ["bench"]])
def test_main_prints_the_help_of_a_group_without_a_command(lmzoo: Command, group: list[str]) -> None:
    result = lmzoo(*group)
    assert (result.code, result.err) == (0, "")
    assert result.out == lmzoo(*group, "--help").out
    assert result.out.startswith(f"Usage: {' '.join(['lmzoo', *group])} [OPTIONS]")


def test_main_reports_a_missing_argument_in_one_line(lmzoo: Command) -> None:
    result = lmzoo("completion")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "Choose from: bash, zsh, fish  (see lmzoo completion --help)" in result.err


@pytest.mark.parametrize("command", [["list"], ["check", "bigram", "--only", "shapes"]])
def test_main_writes_no_style_with_no_color(command: list[str]) -> None:
    """In a terminal, which only `script` and the like can give to a process; a process without it has no styles."""
    for value, styled in (("", True), ("1", False)):
        shown = in_terminal([sys.executable, "-m", "lmzoo", *command], {**os.environ, "NO_COLOR": value})
        assert ("\x1b[" in shown) == styled, shown


def in_terminal(words: list[str], environment: dict[str, str]) -> str:
    """Run a command in a pseudo-terminal and return what it wrote there."""
    ours, theirs = os.openpty()
    done = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    text = b""
    with suppress(OSError):  # the end of a terminal that its last process has left
        while part := os.read(ours, 4096):
            text += part
    os.close(ours)
    assert done.wait() == 0, text
    return text.decode()


@pytest.mark.timing
def test_main_starts_quickly() -> None:
    """Compares whole processes, the best of five each, with a bare start of Python, which takes 0.02 s at most."""

    def best(*arguments: str) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times.append(time.perf_counter() - began)
        return min(times)

    load = max(1.0, best("-c", "pass") / 0.02)
    assert best("-m", "lmzoo", "--help") < 0.3 * load
    assert best("-m", "lmzoo", "list") < 0.6 * load


BAD = {
    "unknown command": (["trian"], "No such command 'trian'"),
    "unknown option": (["train", "gpt2", "--dta", "x"], "--data"),
    "unknown model": (["train", "gtp2", "--data", "TEXT"], "did you mean 'gpt2'?"),
    "unknown preset": (["train", "gpt2.tyni", "--data", "TEXT"], "did you mean 'tiny'?"),
    "unknown corpus": (["train", "gpt2", "--data", "pydcos"], "pydocs"),
    "unknown setting": (["train", "gpt2", "--data", "TEXT", "--set", "d_modl=3"], "d_model"),
    "wrong type": (["train", "gpt2", "--data", "TEXT", "--set", "d_model=wide"], "d_model='wide'"),
    "impossible value": (
        ["train", "gpt2", "--data", "TEXT", "--set", "n_heads=3"],
        "n_heads=3 must divide d_model=128",
    ),
    "impossible training": (["train", "gpt2", "--data", "TEXT", "--set", "steps=0"], "steps=0"),
    "no form": (["train", "gpt2", "--data", "TEXT", "--set", "steps"], "KEY=VALUE"),
    "bad tokenizer": (["train", "gpt2", "--data", "TEXT", "--tokenizer", "words"], "words"),
    "empty file": (["train", "gpt2", "--data", "EMPTY"], "empty"),
    "short file": (["train", "gpt2", "--data", "SHORT"], "SHORT has 1 token: there is nothing to predict"),
    "binary file": (["train", "gpt2", "--data", "BINARY"], "BINARY"),
    "not UTF-8": (["train", "gpt2", "--data", "LATIN"], "UTF-8"),
    "missing config": (["train", "gpt2", "--data", "TEXT", "--config", "absent.toml"], "absent.toml"),
    "missing plugin": (["train", "gpt2", "--data", "TEXT", "--plugin", "absent.py"], "absent.py"),
    "no run": (["sample", "absent"], "absent"),
    "no run to eval": (["eval", "absent"], "absent"),
    "check of nothing": (["check", "absent.py"], "absent.py"),
    "check of an unknown": (["check", "gtp2"], "gpt2"),
    "compare an unknown": (["compare", "bigram", "gtp2", "--data", "TEXT"], "gpt2"),
    "negative vocabulary": (["show", "gpt2", "--vocab-size", "-1"], "-1 is not in the range"),
    "unknown measure": (["show", "gpt2", "--match", "parms=1M"], "match='parms=1M': 'parms' cannot be matched"),
    "unreachable match": (["show", "bigram", "--match", "params=1M"], "leaves nothing to change in bigram"),
}


@pytest.mark.parametrize("case", BAD)
def test_main_reports_bad_input_in_one_line_and_writes_nothing(
    lmzoo: Command, text: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    folder = text.parent
    (folder / "EMPTY").write_bytes(b"")
    (folder / "SHORT").write_text("too short")
    (folder / "BINARY").write_bytes(b"\x00\x01\x02" * 1000)
    (folder / "LATIN").write_bytes("größer\n".encode("latin-1") * 1000)
    monkeypatch.chdir(folder)
    before = {path.name for path in folder.iterdir()}
    arguments, message = BAD[case]
    result = lmzoo(*[str(text) if argument == "TEXT" else argument for argument in arguments])
    assert result.code == 2, result.out + result.err
    assert result.err.startswith("lmzoo: ")
    assert result.err.count("\n") == 1, result.err
    assert message in result.err
    assert {path.name for path in folder.iterdir()} == before, "something was written"


def test_main_names_the_rank_in_errors_of_ranks_other_than_0(lmzoo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = lmzoo("show", "nothing")
    monkeypatch.setenv("RANK", "0")
    assert lmzoo("show", "nothing") == alone
    monkeypatch.setenv("RANK", "1")
    assert lmzoo("show", "nothing") == alone._replace(err=alone.err.replace("lmzoo: ", "lmzoo: rank 1: ", 1))


PLUGINS = {
    "raise RuntimeError('boom\\x1b[2J\\nsecond line')": "failed to import in line 1: RuntimeError: boom",
    "import sys; sys.exit(0)": "failed to import in line 1: SystemExit: 0",
    "def f(:": "SyntaxError",
}


@pytest.mark.parametrize("source", PLUGINS, ids=lambda source: source[:10])
def test_main_names_a_plugin_that_fails(lmzoo: Command, tmp_path: Path, source: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    result = lmzoo("list", "--plugin", tmp_path / "mine.py")
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
    assert PLUGINS[source] in result.err
    assert "\x1b" not in result.err


MODEL = """
import torch, lmzoo
from torch import nn
@lmzoo.register_model("{name}")
class Mine(lmzoo.LanguageModel):
    def __init__(self, config):
        super().__init__(config)
        self.table, self.head = nn.Embedding(config.vocab_size, 8), nn.Linear(8, config.vocab_size)
        {change}
    def features(self, idx_BT, state=None):
        return self.table(idx_BT), None
"""


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mine_head", "self.head = nn.Linear(9, config.vocab_size)", "the model Mine cannot be used: RuntimeError"),
        ("mine_raise", "1 / 0", ":9: ZeroDivisionError: division by zero"),
    ],
)
def test_main_names_the_author_of_a_model_that_raises(
    lmzoo: Command, text: Path, name: str, change: str, message: str
) -> None:
    plugin = text.parent / f"{name}.py"
    plugin.write_text(MODEL.format(name=name, change=change))
    for command in (
        ["show", name],
        ["train", name, "--data", text, "--out", text.parent / "run", "--set", "steps=2"],
    ):
        result = lmzoo(*command, "--plugin", plugin)
        assert result.code == 2
        assert f"{plugin}:" in result.err
        assert message in result.err.splitlines()[-1]


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "two"), ("WORLD_SIZE", "2"), ("RANK", "\x1b[2J")])
def test_main_survives_a_wrong_environment(
    lmzoo: Command, text: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    result = lmzoo("train", "bigram", "--data", text, "--out", text.parent / "out", "--set", "steps=0")
    assert result.code == 2
    if name != "RANK":
        result = lmzoo("train", "bigram", "--data", text, "--out", text.parent / "out", "--set", "steps=1")
        assert (result.code, result.err.count("\n")) == (2, 1), result.err
        assert not (text.parent / "out").exists()


@pytest.mark.parametrize(("rank", "said"), [("0", "lmzoo: stopped after step 3, saved in run"), ("1", "")])
def test_interrupted_lets_rank_0_say_why_all_ranks_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str, said: str
) -> None:
    """A launcher ends rank 0, perhaps before it has printed, as soon as another rank has ended."""
    monkeypatch.setattr(group, "SPEAKING_SECONDS", 0.2)
    monkeypatch.setenv("RANK", rank)
    began = time.monotonic()
    assert group._interrupted(Interrupted(3, Path("run"), signal.SIGTERM)) == 128 + signal.SIGTERM
    assert (time.monotonic() - began >= 0.2) == (rank == "1")
    assert capsys.readouterr().err.partition(";")[0].strip() == said


def test_main_reports_a_full_disk_behind_stdout() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "lmzoo", "list"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "lmzoo: No space left on device\n")


@pytest.mark.parametrize("command", [["list"], ["completion", "bash"]])  # written at the end, and at once
def test_main_ends_well_when_nobody_reads(command: list[str]) -> None:
    """Closes the pipe as `lmzoo list | head -0` does: exit code 1 would say that a check failed."""
    ours, theirs = os.pipe()
    os.close(ours)
    words = [sys.executable, "-m", "lmzoo", *command]
    done = subprocess.run(words, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")


def test_main_replaces_characters_that_the_encoding_of_the_locale_does_not_have() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "COLUMNS": "60"}
    words = [sys.executable, "-m", "lmzoo", "list"]
    done = subprocess.run(words, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"??????" in done.stdout, "the line below the headings"


def test_main_works_with_closed_streams() -> None:
    words = ["sh", "-c", '"$0" -m lmzoo list >&- && "$0" -m lmzoo lst <&- >&-', sys.executable]
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "No such command 'lst'" in done.stderr
    assert "Traceback" not in done.stderr


def test_main_of_the_entry_point_ends_at_once_within_an_import(tmp_path: Path) -> None:
    """A module that swallows the interrupt of its import must not go on half imported."""
    swallow = "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass\n"
    (tmp_path / "swallowing.py").write_text(swallow)
    words = [sys.executable, "-m", "lmzoo", "list", "--plugin", str(tmp_path / "swallowing.py")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "lmzoo: interrupted\n")
