"""Tests of `lmzoo import`: the new directory works with the other commands, and so does the checkpoint itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import lmzoo as zoo
from lmzoo.generation import generate_text
from tests.backbones.against_transformers import random_tokens
from tests.cli.commands import Command
from tests.data.test_pretrained import byte_level
from tests.hf.references import LLAMA, logits_of, reference, saved


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint with a padded vocabulary and a tokenizer that adds a token at the beginning."""
    folder = saved(reference("llama", **{**LLAMA, "vocab_size": 300}), tmp_path / "source")
    byte_level().save(str(folder / "tokenizer.json"))
    return folder


def test_import_writes_a_model_that_commands_read(lmzoo: Command, source: Path, text: Path) -> None:
    out = source.parent / "out"
    done = lmzoo("import", source, out)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"wrote {out}   llama, 40.2 k parameters, float32   try: lmzoo check {out}")
    assert (out / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    idx = random_tokens(300, 2, 12)
    with torch.no_grad():
        torch.testing.assert_close(zoo.load_model(out)(idx).logits, zoo.load_model(source)(idx).logits)
    evaluations = []
    for folder in (out, source):
        sampled = lmzoo("sample", folder, "--prompt", "Hello", "--tokens", 5, "--temperature", 0)
        assert sampled.code == 0, sampled.err
        evaluated = lmzoo("eval", folder, "--data", text, "--json")
        assert evaluated.code == 0, evaluated.err
        evaluations.append((sampled.out, evaluated.out))
    assert evaluations[0] == evaluations[1]
    checked = lmzoo("check", out, "--only", "own_decoding")
    assert checked.code == 0, checked.out


def test_import_generates_as_transformers(source: Path) -> None:
    """The prompt begins with the token that the file adds; ids of the padding stand for no text."""
    theirs = reference("llama", **{**LLAMA, "vocab_size": 300})
    model = zoo.load_model(source)
    tokenizer = zoo.load_tokenizer(source).for_model(300)
    ids = tokenizer.encode("Hello")
    for _ in range(8):
        ids.append(int(logits_of(theirs, torch.tensor([ids]))[0, -1].argmax()))
    ours = "".join(generate_text(model, tokenizer, "Hello", 8, zoo.SamplingConfig(temperature=0.0)))
    assert ours == tokenizer.decode(ids)[len(tokenizer.decode(tokenizer.encode("Hello"))) :]


@pytest.fixture
def chatty(source: Path) -> Path:
    """The checkpoint with a chat template and two tokens that end a turn, one of which comes after two tokens."""
    config = {"chat_template": "<s>{% for m in messages %}{{ m.role }}:{{ m.content }}</s>{% endfor %}a:"}
    (source / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}))
    model, tokenizer = zoo.load_model(source), zoo.load_tokenizer(source).for_model(300)
    prompt = torch.tensor([tokenizer.encode_array("<s>system:Hi</s>user:Hello</s>a:").tolist()])
    new = model.generate(prompt, 9, temperature=0.0)[0, prompt.shape[1] :].tolist()
    third = next(token for token in new if token not in new[:2])
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [299_999, 298, third]}))
    (source / "answer.txt").write_text(tokenizer.decode(new[: new.index(third)]))
    return source


def test_import_keeps_the_chat_template_and_the_end_of_a_turn(lmzoo: Command, chatty: Path) -> None:
    out, answer = chatty.parent / "out", (chatty / "answer.txt").read_text()
    assert lmzoo("import", chatty, out).code == 0
    assert {"tokenizer_config.json", "generation_config.json"} <= {path.name for path in out.iterdir()}
    for folder in (chatty, out):
        asked = ["--chat", "--prompt", "Hello", "--system", "Hi", "--tokens", 9, "--temperature", 0]
        assert lmzoo("sample", folder, *asked).out == f"{answer}\n"
        several = json.loads(lmzoo("sample", folder, *asked, "--samples", 2, "--json").out)
        assert several == {"prompt": "Hello", "texts": [answer, answer]}
        messages = [{"role": "system", "content": "Hi"}, {"role": "user", "content": "Hello"}]
        assert zoo.sample(folder, messages, 9, temperature=0.0) == answer
    for arguments, message in ((["--chat"], "--chat needs --prompt"), (["--system", "a"], "--system needs --chat")):
        refused = lmzoo("sample", out, *arguments)
        assert (refused.code, refused.out) == (2, "")
        assert message in refused.err


def test_train_from_a_chat_model_keeps_its_template(lmzoo: Command, chatty: Path, text: Path) -> None:
    run = chatty.parent / "run"
    small = ["--set", "steps=1", "--set", "batch_size=1", "--set", "context_length=16"]
    done = lmzoo("train", "--from", chatty, "--data", text, "--out", run, *small)
    assert done.code == 0, done.err
    kept = zoo.load_tokenizer(run)
    assert kept.conventions == zoo.load_tokenizer(chatty).conventions
    assert lmzoo("sample", run, "--chat", "--prompt", "Hello", "--tokens", 2).code == 0


def test_import_takes_a_dtype_and_a_checkpoint_without_a_tokenizer(lmzoo: Command, source: Path) -> None:
    (source / "tokenizer.json").unlink()
    done = lmzoo("import", source, source.parent / "out", "--dtype", "bfloat16")
    assert done.code == 0
    assert f"bfloat16, without a tokenizer: {source} has no tokenizer.json" in done.out
    assert zoo.load_model(source.parent / "out").dtype == torch.bfloat16


def test_import_refuses_in_one_line_and_writes_nothing(lmzoo: Command, source: Path) -> None:
    out = source.parent / "out"
    for folder, place, message in (
        (source.parent / "missing", out, "missing/config.json: cannot be read: No such file or directory"),
        (source, source, "exists: it is left as it is"),
    ):
        refused = lmzoo("import", folder, place)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert message in refused.err
    (source / "model.safetensors").write_bytes(b"damaged")
    assert lmzoo("import", source, out).code == 2
    assert not out.exists()
