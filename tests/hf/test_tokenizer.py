"""Tests that AutoTokenizer of transformers gives the ids and the texts of the tokenizer of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # no downloads

import pytest
from transformers import AutoTokenizer

import lmzoo
from lmzoo.data.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer, load_tokenizer, train_tokenizer
from lmzoo.errors import ConfigError, DataError
from lmzoo.hf import export
from lmzoo.hf.tokenizer import hf_json, is_kept, tokenizer_files
from tests.data.test_pretrained import TEXTS, byte_fallback, byte_level
from tests.helpers import SMALL

KNOWN = "".join(TEXTS) + "thn't|\r\n\t \u0000"


def _pretrained(make: Callable[[], object], folder: Path) -> Tokenizer:
    getattr(make(), "save")(str(folder / "source.json"))  # noqa: B009
    return load_tokenizer(folder / "source.json")


MAKERS: dict[str, Callable[[Path], Tokenizer]] = {
    "byte": lambda _: ByteTokenizer(),
    "char": lambda _: CharTokenizer(KNOWN),
    "char+unk": lambda _: CharTokenizer("abcdel Ho\n", unknown=True),
    "bpe": lambda _: train_tokenizer("bpe:300", [KNOWN * 3, "the cat sat on the mat " * 20]),
    "byte level": lambda folder: _pretrained(byte_level, folder),
    "byte fallback": lambda folder: _pretrained(byte_fallback, folder),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_tokenizer_files_give_the_same_ids_and_texts_in_transformers(kind: str, tmp_path: Path) -> None:
    ours = MAKERS[kind](tmp_path)
    export(lmzoo.create_model("llama", vocab_size=ours.vocab_size, **SMALL), tmp_path / "out", tokenizer=ours)
    theirs, again = AutoTokenizer.from_pretrained(tmp_path / "out"), load_tokenizer(tmp_path / "out")
    for text in [*TEXTS, "a\r\nb | don't\t\tdo  that "]:
        ids = ours.encode(text)
        assert theirs(text)["input_ids"] == ids == again.encode(text), repr(text)
        assert theirs.decode(ids) == ours.decode(ids) == again.decode(ids), repr(text)
    assert theirs.model_max_length == SMALL["context_length"]
    assert len(theirs) <= ours.vocab_size
    if kind not in ("byte", "char", "char+unk"):
        assert (tmp_path / "out/tokenizer.json").read_text() == ours.to_json()


def test_tokenizer_files_keep_chat_templates_and_stop_tokens(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    template = "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}"
    config = {"eos_token": "</s>", "chat_template": template, "tokenizer_class": "TokenizersBackend"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = load_tokenizer(tmp_path)
    ends = [ours.vocab_size - 1, 5]
    ours.conventions = replace(ours.conventions, stop_tokens=tuple(ends))
    for model_type in (None, "lmzoo"):
        out = tmp_path / str(model_type)
        model = lmzoo.create_model("llama", vocab_size=ours.vocab_size, **SMALL)
        export(model, out, tokenizer=ours, model_type=model_type)
        for file in ("config.json", "generation_config.json"):
            assert json.loads((out / file).read_text())["eos_token_id"] == ends
        assert load_tokenizer(out).stop_tokens == tuple(ends)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "None")
    messages = [{"role": "user", "content": "he a"}]
    ids = theirs.apply_chat_template(messages)["input_ids"]
    assert ids == ours.apply_chat_template(messages) == load_tokenizer(tmp_path / "None").apply_chat_template(messages)
    assert theirs.eos_token == "</s>"


def test_tokenizer_is_kept_says_where_transformers_builds_it_anew(tmp_path: Path) -> None:
    """Beside a model of type qwen2, AutoTokenizer ignores the class that is named."""
    texts = tokenizer_files(ByteTokenizer(), 16)
    assert is_kept(texts, "llama")
    assert not is_kept(texts, "qwen2")
    for name, text in {**texts, "config.json": json.dumps({"model_type": "qwen2"})}.items():
        (tmp_path / name).write_text(text)
    assert AutoTokenizer.from_pretrained(tmp_path).backend_tokenizer.normalizer is not None  # Qwen's own
    model = lmzoo.create_model("llama", vocab_size=256, attention_bias="qkv", **SMALL)
    assert export(model, tmp_path / "bare").model_type == "qwen2"
    out = tmp_path / "out"
    assert export(model, out, tokenizer=ByteTokenizer()).model_type == "seed_oss"
    assert AutoTokenizer.from_pretrained(out)("caf\u00e9")["input_ids"] == ByteTokenizer().encode("caf\u00e9")
    with pytest.raises(
        ConfigError, match=r"^transformers replaces parts of the tokenizer beside the model type qwen2: "
    ):
        export(model, tmp_path / "other", tokenizer=ByteTokenizer(), model_type="qwen2")


def test_tokenizer_files_decode_every_token_alone(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(hf_json(ByteTokenizer()))
    again = load_tokenizer(tmp_path)
    assert [again.token_bytes(token) for token in range(256)] == [bytes([token]) for token in range(256)]


def test_tokenizer_files_refuse_an_unknown_character(tmp_path: Path) -> None:
    for name, text in tokenizer_files(CharTokenizer("abc"), 16).items():
        (tmp_path / name).write_text(text)
    with pytest.raises(Exception, match="UNK"):
        AutoTokenizer.from_pretrained(tmp_path)("abcd")
    with pytest.raises(DataError, match=r"WordLevel error: Missing \[UNK\] token"):
        load_tokenizer(tmp_path).encode("abcd")
