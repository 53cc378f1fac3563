"""The command line as a person uses it: what it prints, its exit codes, and one clear line for bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from lmzoo import cli

TEXT = "".join(f"{i} sheep and {i * 7 % 13} goats went over the hill.\n" for i in range(200))
SMALL = ["--set", "d_model=16", "--set", "n_layers=1", "--set", "n_heads=2", "--set", "context_length=16"]
QUICK = ["--set", "steps=4", "--set", "batch_size=4"]


class Result(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def lmzoo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process: `lmzoo("list", "gpt*") -> Result`."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["lmzoo", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return Result(int(stopped.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "sheep.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def run(lmzoo: Command, text: Path) -> Path:
    out = text.parent / "run"
    result = lmzoo("train", "gpt2", "--data", text, "--out", out, *SMALL, *QUICK)
    assert result.code == 0, result.err
    assert re.search(r"validation loss \d\.\d{4} nats per token, \d\.\d{4} bits per byte", result.out)
    return out


def test_every_command_teaches_by_example(lmzoo: Command) -> None:
    assert set(cli.cli.commands) == {
        "list",
        "show",
        "train",
        "sample",
        "eval",
        "compare",
        "check",
        "bench",
        "completion",
    }
    for name in cli.cli.commands:
        result = lmzoo(name, "--help")
        assert result.code == 0
        assert f"  lmzoo {name} " in result.out or f"  lmzoo {name}\n" in result.out, f"{name} --help shows no example"


@pytest.mark.timing
def test_help_and_list_are_quick() -> None:
    """Whole processes, the best of three: a shared machine may be slow at any one of them."""
    for arguments, limit in ((["--help"], 0.3), (["list"], 0.6)):
        times = []
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", "lmzoo", *arguments], check=True, capture_output=True)
            times.append(time.perf_counter() - began)
        assert min(times) < limit, times


def test_list_and_show(lmzoo: Command) -> None:
    assert lmzoo("list", "gpt2.1*").out.split()[0] == "gpt2.1m"
    assert json.loads(lmzoo("list", "bigram*", "--json").out) == ["bigram", "bigram.tiny", "bigram.1m", "bigram.10m"]
    constant = json.loads(lmzoo("list", "--state", "constant", "--json").out)
    assert "mamba.tiny" in constant
    assert "gpt2" not in constant
    shown = lmzoo("show", "gpt2.124m", "--vocab-size", 50257)
    assert "124,439,808" in shown.out
    assert "n_layers = 12" in shown.out
    assert "\n+- 12 x ---" in shown.out, "the drawing"


def test_show_matches_a_budget(lmzoo: Command) -> None:
    shown = lmzoo("show", "llama", "--match", "params=1M").out
    parameters = re.search(r"^parameters: +([\d,]+) ", shown, re.MULTILINE)
    assert parameters
    assert int(parameters[1].replace(",", "")) == pytest.approx(1e6, rel=0.02)
    assert re.search(
        r"^matched: +params=1M met to [+-]\d\.\d\d %; d_ff / d_model changed by a factor of \d", shown, re.M
    )
    assert "\nd_model = 144\n" in shown


def test_show_json_has_counts_settings_and_the_drawing(lmzoo: Command) -> None:
    shown = json.loads(lmzoo("show", "mamba.tiny", "--match", "flops=1M", "--json").out)
    assert shown["name"] == "mamba.tiny"
    assert shown["flops_per_token"] == shown["match"]["value"] == pytest.approx(1e6, rel=0.02)
    assert shown["drawing"]["model"]["cost"]["params"] == shown["parameters"]
    assert shown["model"]["n_layers"] == 3
    assert json.loads(lmzoo("show", "bigram", "--json").out)["match"] is None


@pytest.mark.parametrize("columns", [80, 140])
def test_show_draws_to_the_width_of_the_terminal(lmzoo: Command, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = lmzoo("show", "gpt2.tiny").out.splitlines()
    assert max(len(line) for line in lines if line.startswith("+-")) == min(columns, 100)


def test_train_sample_eval_resume(lmzoo: Command, run: Path, text: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"config.toml", "metrics.jsonl", "tokenizer.json", "checkpoints", "sample.txt"} <= names

    evaluated = json.loads(lmzoo("eval", run, "--json").out)
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert evaluated["loss"] == pytest.approx(last["loss"], abs=1e-6)
    assert evaluated["tokens"] == len(TEXT) - int(0.9 * len(TEXT)) - 1

    first, again = (lmzoo("sample", run, "--prompt", "3 sheep", "-n", 20, "--seed", 1) for _ in range(2))
    assert first.code == 0
    assert first.out == again.out
    assert first.out.startswith("3 sheep")
    assert len(first.out) == len("3 sheep") + 20 + 1

    resumed = lmzoo(
        "train", "gpt2", "--data", text, "--out", run, *SMALL, "--set", "batch_size=4", "--set", "steps=4", "--resume"
    )
    assert resumed.code == 0


def test_eval_by_position(lmzoo: Command, run: Path) -> None:
    found = json.loads(lmzoo("eval", run, "--by-position", "--json").out)
    assert [(part["first"], part["last"]) for part in found["by_position"]] == [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16)]
    shown = lmzoo("eval", run, "--length", 40)
    assert re.search(r"^ +17 to 32 +\d\.\d{4}  over [\d,]+ tokens$", shown.out, re.MULTILINE), shown.out
    assert lmzoo("eval", run, "--length", 0).code == 2
    long = lmzoo("eval", run, "--length", 10**6)
    assert (long.code, long.err.count("\n")) == (2, 1)


def test_several_samples_and_drafts(lmzoo: Command, run: Path, text: Path) -> None:
    several = lmzoo("sample", run, "--prompt", "3 sheep", "-n", 15, "--seed", 1, "--samples", 3).out
    parts = re.split(r"^--- \d\n", several, flags=re.MULTILINE)[1:]
    assert len(parts) == len(set(parts)) == 3
    assert all(part.startswith("3 sheep") and len(part) == len("3 sheep") + 15 + 1 for part in parts)
    one = lmzoo("sample", run, "--prompt", "3 sheep", "-n", 15, "--seed", 1).out
    assert parts[0] == one, "the first is what one alone is"

    plain = lmzoo("sample", run, "--prompt", "3 sheep", "-n", 30, "--temperature", 0).out
    for draft in (run, "lookup"):
        drafted = lmzoo("sample", run, "--prompt", "3 sheep", "-n", 30, "--temperature", 0, "--draft", draft)
        assert drafted.out == plain, drafted.err
    other = text.parent / "bytes"
    assert lmzoo("train", "bigram", "--data", text, "--out", other, "--tokenizer", "byte", *QUICK).code == 0
    for arguments, message in (
        (["--draft", other], "tokenizer"),
        (["--draft", "absent"], "absent"),
        (["--draft", run, "--samples", 2], "--samples"),
        (["--samples", 0], "n_samples=0"),
        (["--compiled"], "--weights"),
    ):
        result = lmzoo("sample", run, "--prompt", "3", *arguments)
        assert (result.code, result.err.count("\n")) == (2, 1), result.err
        assert message in result.err


def test_sample_with_rounded_weights(lmzoo: Command, run: Path) -> None:
    for weights in ("bfloat16", "int8"):
        written = lmzoo("sample", run, "--prompt", "3 sheep", "-n", 15, "--weights", weights)
        assert (written.code, len(written.out)) == (0, len("3 sheep") + 15 + 1), written.err


def test_config_file_and_overrides(lmzoo: Command, text: Path) -> None:
    file = text.parent / "small.toml"
    file.write_text("[model]\nd_model = 16\nn_layers = 1\nn_heads = 2\ncontext_length = 16\n[train]\nsteps = 100\n")
    out = text.parent / "from_file"
    result = lmzoo("train", "gpt2", "--data", text, "--out", out, "--config", file, *QUICK, "--set", "model.n_heads=4")
    assert result.code == 0, result.err
    written = (out / "config.toml").read_text()
    assert "n_heads = 4" in written
    assert "steps = 4" in written


def test_check_passes_a_right_model_and_fails_a_wrong_one(lmzoo: Command, tmp_path: Path) -> None:
    assert lmzoo("check", "bigram").code == 0
    wrong = tmp_path / "peeks.py"
    wrong.write_text(
        "from torch import nn\nimport lmzoo\n"
        "@lmzoo.register_model('peeks')\n"
        "class Peeks(lmzoo.LanguageModel):\n"
        "    def __init__(self, config):\n"
        "        super().__init__(config)\n"
        "        self.table = nn.Embedding(config.vocab_size, 8)\n"
        "        self.head = nn.Linear(8, config.vocab_size)\n"
        "    def features(self, idx_BT, state=None):\n"
        "        x_BTD = self.table(idx_BT)\n"
        "        return x_BTD + x_BTD.roll(-1, dims=1), state\n"
    )
    result = lmzoo("check", wrong, "--json")
    report = json.loads(result.out)
    assert result.code == 1
    assert not report["passed"]
    assert any("causal" in name for name in report["failures"]), report["failures"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(lmzoo: Command, shell: str) -> None:
    assert "_LMZOO_COMPLETE" in lmzoo("completion", shell).out


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
    "short file": (["train", "gpt2", "--data", "SHORT"], "context_length"),
    "binary file": (["train", "gpt2", "--data", "BINARY"], "BINARY"),
    "not UTF-8": (["train", "gpt2", "--data", "LATIN"], "UTF-8"),
    "missing config": (["train", "gpt2", "--data", "TEXT", "--config", "absent.toml"], "absent.toml"),
    "missing plugin": (["train", "gpt2", "--data", "TEXT", "--plugin", "absent.py"], "absent.py"),
    "no run": (["sample", "absent"], "absent"),
    "no run to eval": (["eval", "absent"], "absent"),
    "check of nothing": (["check", "absent.py"], "absent.py"),
    "check of an unknown": (["check", "gtp2"], "gpt2"),
    "compare an unknown": (["compare", "bigram", "gtp2", "--data", "TEXT"], "gpt2"),
    "negative vocabulary": (["show", "gpt2", "--vocab-size", "-1"], "vocab_size=-1"),
    "unknown measure": (["show", "gpt2", "--match", "parms=1M"], "match='parms=1M': 'parms' cannot be matched"),
    "unreachable match": (["show", "bigram", "--match", "params=1M"], "leaves nothing to change in bigram"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(
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


SAMPLING = {
    "temperature": (["--temperature", "-1"], "temperature=-1"),
    "top_p": (["--top-p", "0"], "top_p=0"),
    "top_k": (["--top-k", "0"], "top_k=0"),
    "tokens": (["-n", "-5"], "-5"),
    "prompt": (["--prompt", "3 sheep 羊"], "羊"),
    "empty prompt": (["--prompt", ""], "prompt"),
}


def test_bad_sampling_is_one_line(lmzoo: Command, run: Path) -> None:
    for arguments, message in SAMPLING.values():
        result = lmzoo("sample", run, *arguments)
        assert result.code == 2, result.out
        assert result.err.count("\n") == 1, result.err
        assert message in result.err


def test_a_run_is_never_overwritten_or_mixed(lmzoo: Command, run: Path, text: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    again = ["train", "gpt2", "--data", text, "--out", run, *SMALL, *QUICK]
    exists = lmzoo(*again)
    assert (exists.code, exists.err.count("\n")) == (2, 1)
    assert "--resume" in exists.err
    other = lmzoo(*again, "--resume", "--set", "n_layers=2")
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "n_layers" in other.err
    text.write_text(TEXT + "One more sheep.\n")
    changed = lmzoo(*again, "--resume")
    assert (changed.code, changed.err.count("\n")) == (2, 1)
    assert "sha256" in changed.err.lower() or "hash" in changed.err.lower(), changed.err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.filterwarnings("always::lmzoo.storage.checkpoints.DamagedCheckpointWarning")
def test_a_damaged_checkpoint_is_refused(lmzoo: Command, run: Path) -> None:
    older, newest = sorted(run.glob("checkpoints/*/model.safetensors"))[-2:]
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-10])
    result = lmzoo("sample", run, "--prompt", "3", "-n", 5)
    assert (result.code, result.err.count("\n")) == (0, 1), result.err
    assert result.err.startswith("lmzoo: warning: ")
    assert str(newest) in result.err, "the one before is used, and that is said"
    for damaged in (whole[:-10], whole[:200] + b"\xff" + whole[201:]):
        for weights in (older, newest):
            weights.write_bytes(damaged)
        result = lmzoo("sample", run, "--prompt", "3", "-n", 5)
        assert (result.code, result.err.count("\n")) == (2, 1), result.err
        assert "model.safetensors" in result.err


def test_a_read_only_place_is_refused(lmzoo: Command, text: Path) -> None:
    """A file where the run's parent folder should be: refused for every user, root included."""
    (text.parent / "file").write_text("")
    result = lmzoo("train", "gpt2", "--data", text, "--out", text.parent / "file" / "run", *SMALL, *QUICK)
    assert (result.code, result.err.count("\n")) == (2, 1), result.err


def test_main_names_the_rank_in_errors_of_ranks_other_than_0(lmzoo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = lmzoo("show", "nothing")
    monkeypatch.setenv("RANK", "0")
    assert lmzoo("show", "nothing") == alone
    monkeypatch.setenv("RANK", "1")
    assert lmzoo("show", "nothing") == alone._replace(err=alone.err.replace("lmzoo: ", "lmzoo: rank 1: ", 1))


def test_interrupting_a_sample_leaves_what_there_is(run: Path) -> None:
    """A real Ctrl-C in a real process: the text so far stays, the line is ended, the exit code says why."""
    command = [sys.executable, "-m", "lmzoo", "sample", str(run), "--prompt", "3", "-n", "1000000"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10)
        process.send_signal(2)
        rest, message = process.stdout.read(), process.stderr.read().decode()
    assert process.returncode == 130
    assert rest.endswith(b"\n")
    assert message.strip() == "lmzoo: interrupted"
