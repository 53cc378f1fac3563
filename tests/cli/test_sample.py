"""Tests of `lmzoo sample`, as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import QUICK, TEXT, Command


def test_sample_several_texts_and_with_drafts(lmzoo: Command, run: Path, text: Path) -> None:
    several = lmzoo("sample", run, "--prompt", "3 sheep", "-n", 15, "--seed", 1, "--samples", 3).out
    parts = re.split(r"^--- \d\n", several, flags=re.MULTILINE)[1:]
    assert len(parts) == len(set(parts)) == 3
    assert all(part.startswith("3 sheep") and len(part) == len("3 sheep") + 15 + 1 for part in parts)
    one = lmzoo("sample", run, "--prompt", "3 sheep", "-n", 15, "--seed", 1).out
    assert parts[0] == one, "the first sample equals a single sample"

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
        (["--samples", 0], "1<=x<=10000"),
        (["--compiled"], "--weights"),
    ):
        result = lmzoo("sample", run, "--prompt", "3", *arguments)
        assert (result.code, result.err.count("\n")) == (2, 1), result.err
        assert message in result.err


def test_sample_with_quantized_weights(lmzoo: Command, run: Path) -> None:
    for weights in ("bfloat16", "int8"):
        written = lmzoo("sample", run, "--prompt", "3 sheep", "-n", 15, "--weights", weights)
        assert (written.code, len(written.out)) == (0, len("3 sheep") + 15 + 1), written.err


BAD_SAMPLING = {
    "temperature": (["--temperature", "-1"], "temperature=-1"),
    "top_p": (["--top-p", "0"], "top_p=0"),
    "top_k": (["--top-k", "0"], "top_k=0"),
    "tokens": (["-n", "-5"], "-5"),
    "prompt": (["--prompt", "3 sheep 羊"], "羊"),
    "empty prompt": (["--prompt", ""], "prompt"),
}


def test_sample_reports_bad_settings_in_one_line(lmzoo: Command, run: Path) -> None:
    for arguments, message in BAD_SAMPLING.values():
        result = lmzoo("sample", run, *arguments)
        assert result.code == 2, result.out
        assert result.err.count("\n") == 1, result.err
        assert message in result.err


@pytest.mark.filterwarnings("always::lmzoo.storage.checkpoints.DamagedCheckpointWarning")
def test_sample_refuses_a_damaged_checkpoint(lmzoo: Command, run: Path) -> None:
    older, newest = sorted(run.glob("checkpoints/*/model.safetensors"))[-2:]
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-10])
    result = lmzoo("sample", run, "--prompt", "3", "-n", 5)
    assert (result.code, result.err.count("\n")) == (0, 1), result.err
    assert result.err.startswith("lmzoo: warning: ")
    assert str(newest) in result.err, "the warning names the damaged file"
    for damaged in (whole[:-10], whole[:200] + b"\xff" + whole[201:]):
        for weights in (older, newest):
            weights.write_bytes(damaged)
        result = lmzoo("sample", run, "--prompt", "3", "-n", 5)
        assert (result.code, result.err.count("\n")) == (2, 1), result.err
        assert "model.safetensors" in result.err


def test_sample_interrupted_keeps_the_text_so_far(run: Path) -> None:
    """Ctrl-C in a real process: the text so far is kept, its line is ended, and the exit code is 130."""
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


def test_sample_starts_from_a_text_without_line_breaks(lmzoo: Command, text: Path) -> None:
    for name, characters in (("spaces", TEXT.replace("\n", " ")), ("letters", "".join(filter(str.isalnum, TEXT)))):
        text.write_text(characters, encoding="utf-8")
        out = text.parent / name
        assert lmzoo("train", "bigram", "--data", text, "--out", out, *QUICK).code == 0
        result = lmzoo("sample", out, "-n", 5)
        assert (result.code, len(result.out)) == (0, 1 + 5 + 1), result.err
