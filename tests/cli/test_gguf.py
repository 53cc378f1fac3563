"""Tests of `lmzoo gguf`, on a saved model and on a checkpoint without a tokenizer."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

import lmzoo as zoo
from lmzoo.data.tokenizers import train_tokenizer
from tests.cli.commands import Command


@pytest.mark.parametrize("spec", ["bpe:300", None])
def test_gguf_writes_a_saved_model(spec: str | None, lmzoo: Command, tmp_path: Path) -> None:
    tokenizer = None if spec is None else train_tokenizer(spec, ["the cat and the hat, the cat and "] * 9)
    size = 61 if tokenizer is None else tokenizer.vocab_size
    model = zoo.create_model("llama", vocab_size=size, d_model=32, n_layers=1, n_heads=4)
    model.save(tmp_path / "model", tokenizer=tokenizer)
    done = lmzoo("gguf", tmp_path / "model", tmp_path / "a.gguf", "--dtype", "float16")
    text = "tokenizer gpt-2" if spec else "without a tokenizer: give and take token ids"
    assert (done.code, done.err) == (0, "")
    assert done.out == f"wrote {tmp_path / 'a.gguf'}   architecture llama, 12 tensors, {text}\n"
    assert len(gguf.GGUFReader(tmp_path / "a.gguf").tensors) == 12
    again = lmzoo("gguf", tmp_path / "model", tmp_path / "a.gguf")
    assert (again.code, again.out, again.err.count("\n")) == (2, "", 1)
