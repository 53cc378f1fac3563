"""Tests of `lmzoo train` and `eval`, and of `sample` together with them, as a user runs them."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lmzoo import registry
from lmzoo.data.tokenizers import ByteTokenizer
from tests.cli.commands import QUICK, SMALL, TEXT, Command


def test_train_sample_eval_and_resume(lmzoo: Command, run: Path, text: Path) -> None:
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


def test_eval_prints_the_loss_by_position(lmzoo: Command, run: Path) -> None:
    found = json.loads(lmzoo("eval", run, "--by-position", "--json").out)
    assert [(part["first"], part["last"]) for part in found["by_position"]] == [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16)]
    shown = lmzoo("eval", run, "--length", 40)
    assert re.search(r"^ +17 to 32 +\d\.\d{4}  over [\d,]+ tokens$", shown.out, re.MULTILINE), shown.out
    assert lmzoo("eval", run, "--length", 0).code == 2
    long = lmzoo("eval", run, "--length", 10**6)
    assert (long.code, long.err.count("\n")) == (2, 1)
    (run / "validation.safetensors").unlink()
    assert lmzoo("eval", run).err.startswith("reading the text of the run: ")


def test_eval_takes_a_stride(lmzoo: Command, run: Path) -> None:
    plain, strided = (json.loads(lmzoo("eval", run, "--json", *more).out) for more in ([], ["--stride", 4]))
    assert (plain["context_length"], plain["stride"], strided["stride"]) == (16, 16, 4)
    assert plain["tokens"] == strided["tokens"]
    assert plain["loss"] != strided["loss"]
    assert "tokens in windows of 16 tokens, stride 4" in lmzoo("eval", run, "--stride", 4).out
    for bad in (0, 17, "x"):
        refused = lmzoo("eval", run, "--stride", bad)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1), refused.err
    assert "stride=17 must be an integer in [1, context_length=16]" in lmzoo("eval", run, "--stride", 17).err


def test_eval_carries_the_context(lmzoo: Command, run: Path, text: Path) -> None:
    plain, carried = (["eval", run, "--context", way, "--json"] for way in ("reset", "carried"))
    assert json.loads(lmzoo(*plain).out)["context"] == "reset"
    refused = lmzoo(*carried)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        f"lmzoo: context='carried' cannot be given: {run} sees at most context_length=16 tokens (with a smaller stride "
        "its predictions see more of them)\n"
    )
    out = text.parent / "recurrent"
    lmzoo(
        "train", "lstm.tiny", "--data", text, "--out", out, *QUICK, "--set", "d_model=8", "--set", "context_length=16"
    )
    found, reset = (json.loads(lmzoo("eval", out, "--context", way, "--json").out) for way in ("carried", "reset"))
    assert (found["context"], found["tokens"]) == ("carried", reset["tokens"])
    assert found["loss"] != reset["loss"]
    shown = lmzoo("eval", out, "--context", "carried").out
    assert f"loss {found['loss']:.4f} nats per token" in shown
    assert "tokens in windows of 16 tokens, context carried" in shown
    assert "stride=4 cannot be given" in lmzoo("eval", out, "--context", "carried", "--stride", 4).err


def test_train_reads_a_config_file_and_overrides(lmzoo: Command, text: Path) -> None:
    file = text.parent / "small.toml"
    file.write_text("[model]\nd_model = 16\nn_layers = 1\nn_heads = 2\ncontext_length = 16\n[train]\nsteps = 100\n")
    out = text.parent / "from_file"
    result = lmzoo("train", "gpt2", "--data", text, "--out", out, "--config", file, *QUICK, "--set", "model.n_heads=4")
    assert result.code == 0, result.err
    written = (out / "config.toml").read_text()
    assert "n_heads = 4" in written
    assert "steps = 4" in written


def test_train_names_the_plugins_in_the_command_that_it_suggests(lmzoo: Command, text: Path) -> None:
    plugin = text.parent / "my plug-in.py"
    plugin.write_text(
        "import lmzoo\n"
        "from lmzoo.backbones.gpt2 import GPT2\n"
        "\n"
        "@lmzoo.register_model('mine')\n"
        "class Mine(GPT2):\n"
        "    pass\n"
    )
    out = text.parent / "mine"
    try:
        trained = lmzoo("train", "mine", "--plugin", plugin, "--data", text, "--out", out, *SMALL, *QUICK)
        assert trained.code == 0, trained.err
        suggested = trained.out.rpartition("try: ")[2].strip()
        assert suggested == f"lmzoo sample {out} --plugin '{plugin}'"
        sampled = lmzoo(*shlex.split(suggested)[1:], "-n", 2)
        assert sampled.code == 0, sampled.err
    finally:
        registry._classes.pop("mine", None)
    unknown = lmzoo("sample", out)
    assert (unknown.code, unknown.err.count("--plugin")) == (2, 1), unknown.err


def test_train_never_overwrites_or_mixes_a_run(lmzoo: Command, run: Path, text: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    again = ["train", "gpt2", "--data", text, "--out", run, *SMALL, *QUICK]
    exists = lmzoo(*again)
    assert (exists.code, exists.err.count("\n")) == (2, 1)
    assert "--resume" in exists.err
    assert "--out" in exists.err
    other = lmzoo(*again, "--resume", "--set", "n_layers=2")
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "n_layers" in other.err
    text.write_text(TEXT + "One more sheep.\n")
    changed = lmzoo(*again, "--resume")
    assert (changed.code, changed.err.count("\n")) == (2, 1)
    assert "sha256" in changed.err.lower() or "hash" in changed.err.lower(), changed.err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_train_refuses_an_empty_text_in_the_place_of_its_default(lmzoo: Command, tmp_path: Path, text: Path) -> None:
    """Tests the text that a shell variable without a value gives."""
    place = ["--out", tmp_path / "out"]
    for option in (["--data", ""], ["--data", text, "--tokenizer", ""]):
        result = lmzoo("train", "bigram", *option, *place, "--set", "steps=2")
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    for option in (["--data", ""], ["--data", text, "--tokenizer", ""], ["--sizes", "1k,2k,3k", "--data", ""]):
        result = lmzoo("compare", "bigram", *option, *place)
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "out").exists()


def test_device_option_chooses_the_device(
    lmzoo: Command, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMZOO_DEVICE", "tpu")  # which the option replaces
    out, quick = tmp_path / "out", ["--set", "context_length=16", *QUICK]
    for command in (["train", "bigram"], ["compare", "bigram"]):
        for kind in ("tpu", "cud\x1ba"):
            result = lmzoo(*command, "--data", text, "--out", out, *quick, "--device", kind)
            assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
            assert "must be 'cpu' or 'cuda'" in result.err
    assert not out.exists()
    assert lmzoo("train", "bigram", "--data", text, "--out", out, *quick, "--device", "cpu").code == 0
    assert 'device = "cpu"' in (out / "config.toml").read_text()


def test_train_escapes_what_a_terminal_obeys(lmzoo: Command, text: Path) -> None:
    out = text.parent / "a\x1b[2J"
    result = lmzoo("train", "bigram", "--data", text, "--out", out, "--set", "context_length=16", *QUICK)
    assert result.code == 0, result.err
    assert r"/a\x1b[2J   try: " in result.out
    assert "\x1b" not in result.out + result.err


def test_train_refuses_a_read_only_place(lmzoo: Command, text: Path) -> None:
    """A file in the place of the parent folder: refused for every user, root included."""
    (text.parent / "file").write_text("")
    result = lmzoo("train", "gpt2", "--data", text, "--out", text.parent / "file" / "run", *SMALL, *QUICK)
    assert (result.code, result.err.count("\n")) == (2, 1), result.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_train_stopped_by_a_signal_exits_with_its_number(text: Path, number: int, code: int) -> None:
    """Also that training does not import torch's compiler, which would take more than a second."""
    out = text.parent / "stopped"
    metrics = out / "metrics.jsonl"
    command = ["train", "gpt2", "--data", str(text), "--out", str(out), *SMALL, "--set", "steps=100000"]
    words = [sys.executable, "-X", "importtime", "-m", "lmzoo", *command, "--set", "log_every=1"]
    errors = text.parent / "errors.txt"  # a pipe that nobody reads would be full of imports
    with errors.open("w") as file, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=file, text=True) as process:
        while process.poll() is None and not (metrics.is_file() and metrics.read_text()):
            time.sleep(0.02)
        process.send_signal(number)
        shown, _ = process.communicate(timeout=60)
    message = errors.read_text()
    assert process.returncode == code, message
    assert shown == "", "progress and messages go to stderr"
    assert "lmzoo: stopped after step " in message
    assert "torch.optim" in message
    assert "torch._dynamo" not in message


MODEL = """
import lmzoo
from lmzoo.backbones.bigram import Bigram

@lmzoo.register_model("trained")
class Trained(Bigram):
    pass
"""


def test_train_takes_a_file_and_suggests_a_command_that_works(lmzoo: Command, text: Path) -> None:
    plugin = text.parent / "trained.py"
    plugin.write_text(MODEL)
    result = lmzoo("train", plugin, "--data", text, "--out", text.parent / "out", *QUICK)
    assert result.code == 0, result.err
    assert re.search(r"^training: [\d,]+ tokens in .* s \([\d,]+ tokens/s\); evaluation: [\d.]+ s$", result.out, re.M)
    suggested = shlex.split(result.out.rpartition("try: lmzoo ")[2])
    assert suggested == ["sample", str(text.parent / "out"), "--plugin", str(plugin)]
    assert lmzoo(*suggested, "-n", 3).code == 0


def test_train_and_sample_print_json(lmzoo: Command, text: Path) -> None:
    out = text.parent / "out"
    result = json.loads(lmzoo("train", "bigram", "--data", text, "--out", out, *QUICK, "--json").out)
    assert {*result} == {"path", "loss", "bits_per_byte", "tokens", "seconds", "tokens_per_s", "eval_seconds"}
    assert (result["path"], result["tokens"]) == (str(out), 4 * 4 * 256)
    for number in (1, 2):
        command = ["sample", out, "--prompt", "3 sheep", "-n", 5, "--seed", 1, "--samples", number, "--json"]
        sampled = json.loads(lmzoo(*command).out)
        assert sampled["prompt"] == "3 sheep"
        assert [len(part) for part in sampled["texts"]] == [5] * number


def test_eval_json_of_a_model_that_gives_no_numbers_is_json(lmzoo: Command, text: Path) -> None:
    model = registry.create_model("bigram", vocab_size=256)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    model.save(text.parent / "nan", tokenizer=ByteTokenizer())
    shown = lmzoo("eval", text.parent / "nan", "--data", text, "--json").out

    def refused(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    found = json.loads(shown, parse_constant=refused)
    assert (found["loss"], found["bits_per_byte"]) == (None, None)


def test_train_resumes_a_run_without_its_settings(lmzoo: Command, run: Path, text: Path) -> None:
    before = (run / "config.toml").read_text()
    again = lmzoo("train", "--resume", run)
    assert again.code == 0, again.err
    assert (run / "config.toml").read_text() == before
    for arguments, message in (
        (["train", run], f"{run} is a run: --resume continues it"),
        (["train", "bigram", "--reshard"], "--reshard needs --resume"),
        (["train", "--resume", text.parent / "absent"], "absent is not a run: there is nothing to resume"),
        (["train", "--resume", run, "--out", text.parent / "other"], "continues where it is"),
        (["train", "--resume", run, "--set", "d_model=32"], "model.d_model=32, but the run in"),
        (["train", "--resume", run, "--set", "steps=8"], "schedule='cosine', which began to decay after step 0"),
        (["train", "--resume", run, "--set", "steps=2"], "train.steps=2, but the run in"),
    ):
        result = lmzoo(*arguments)
        assert (result.code, result.err.count("\n")) == (2, 1), result.err
        assert message in result.err
    assert (run / "config.toml").read_text() == before


def test_train_prolongs_a_finished_run_and_says_when_a_run_is_new(lmzoo: Command, text: Path) -> None:
    out = text.parent / "constant"
    constant = [*SMALL, *QUICK, "--set", "schedule=constant", "--out", out, "--data", text]
    first = lmzoo("train", "gpt2", *constant, "--resume")
    assert first.code == 0, first.err
    assert "holds no run yet: a new one begins" in " ".join((first.out + first.err).split())
    longer = lmzoo("train", "--resume", out, "--set", "steps=6")
    assert longer.code == 0, longer.err
    assert "steps = 6" in (out / "config.toml").read_text()
    assert "no run yet" not in longer.out + longer.err


def test_sample_and_eval_take_saved_models(lmzoo: Command, run: Path, text: Path) -> None:
    from lmzoo.runs.saved import load_run

    model, tokenizer, _ = load_run(run)
    saved, bare = text.parent / "saved", text.parent / "bare"
    model.save(saved, tokenizer=tokenizer)
    model.save(bare)
    wanted = lmzoo("sample", run, "--prompt", "3 sheep", "-n", 20, "--seed", 1).out
    assert lmzoo("sample", saved, "--prompt", "3 sheep", "-n", 20, "--seed", 1).out == wanted
    assert lmzoo("sample", bare, "--tokenizer", run, "--prompt", "3 sheep", "-n", 20, "--seed", 1).out == wanted
    losses = [
        json.loads(lmzoo("eval", *arguments, "--data", text, "--json").out)["loss"]
        for arguments in ([run], [saved], [bare, "--tokenizer", run], [run / "checkpoints"])
    ]
    assert len(set(losses)) == 1
    missing = lmzoo("sample", bare)
    assert (missing.code, missing.err.count("\n")) == (2, 1)


def test_eval_takes_several_runs(lmzoo: Command, run: Path, text: Path) -> None:
    other = text.parent / "bytes"
    assert lmzoo("train", "bigram", "--data", text, "--out", other, "--tokenizer", "bpe:260", *QUICK).code == 0
    both = lmzoo("eval", run, other)
    assert [line.partition(": loss ")[0] for line in both.out.splitlines()] == [str(run), str(other)]
    assert "compare the bits per byte" in both.err
    found = json.loads(lmzoo("eval", run, other, "--json").out)
    assert [entry["run"] for entry in found] == [str(run), str(other)]


def test_documents_option_isolates_documents(lmzoo: Command, text: Path) -> None:
    folder = text.parent / "documents"
    folder.mkdir()
    for number, line in enumerate(TEXT.splitlines()[:60]):
        (folder / f"{number:02}.txt").write_text(line, encoding="utf-8")
    out = text.parent / "isolated"
    made = lmzoo("train", "bigram", "--data", folder, "--out", out, "--documents", "isolated", *QUICK)
    assert made.code == 0, made.err
    assert 'documents = "isolated"' in (out / "config.toml").read_text(encoding="utf-8")
    own, joined = (
        json.loads(lmzoo("eval", out, "--json", *more).out)["tokens"] for more in ((), ("--documents", "joined"))
    )
    assert own < joined
    assert lmzoo("eval", out, "--documents", "joined").err.startswith("reading the text of the run: ")
    for command in (["train", "bigram"], ["compare", "bigram"]):
        refused = lmzoo(*command, "--documents", "isolated", "--set", "documents=joined", "--out", text.parent / "no")
        assert refused.code == 2
        assert "--documents isolated and --set documents=joined must be the same" in refused.err
    assert not (text.parent / "no").exists()
