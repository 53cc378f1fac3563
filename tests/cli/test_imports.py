"""Tests of `lmzoo import`: the new directory works with the other commands, and so does the checkpoint itself."""

from __future__ import annotations

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
