"""Tests of the tokenizer in a GGUF file: tokens, merges, special tokens, and when there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer

from lmzoo.data.tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from lmzoo.gguf.tokenizer import _LLAMA3, _PATTERNS, add_tokenizer, pattern_of
from tests.data.published import byte_level, save, sentence_piece, unigram, word_piece


def written(tokenizer: Tokenizer | None, vocab_size: int, folder: Path) -> tuple[str | None, dict[str, Any]]:
    """Returns what `add_tokenizer` returns, and the metadata of the file."""
    writer = gguf.GGUFWriter(None, "llama")
    name = add_tokenizer(writer, tokenizer, vocab_size)
    writer.write_header_to_file(folder / "a.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    fields = gguf.GGUFReader(folder / "a.gguf").fields
    return name, {key.removeprefix("tokenizer."): field.contents() for key, field in fields.items()}


def test_add_tokenizer_writes_an_own_bpe(tmp_path: Path) -> None:
    tokenizer = train_tokenizer("bpe:300", ["the cat and the hat, the cat and 中文 "] * 9)
    name, facts = written(tokenizer, tokenizer.vocab_size, tmp_path)
    content = json.loads(tokenizer.to_json())
    assert (name, facts["ggml.model"], facts["ggml.pre"]) == ("gpt-2", "gpt2", "gpt-2")
    assert facts["ggml.tokens"] == sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    assert facts["ggml.merges"] == [" ".join(pair) for pair in content["model"]["merges"]]
    assert {*facts["ggml.token_type"]} == {1}
    assert facts["ggml.add_bos_token"] is False


def test_add_tokenizer_writes_special_tokens_and_the_chat_template(tmp_path: Path) -> None:
    hf = byte_level()
    hf.add_tokens(["user defined"])
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<|endoftext|>"}
    config |= {"unk_token": "<|endoftext|>", "chat_template": "{{ messages }}"}
    folder = save(tmp_path / "there", hf, "llama", config, generation_config={"eos_token_id": [3, 5]})
    tokenizer = load_tokenizer(folder)
    size = tokenizer.vocab_size
    name, facts = written(tokenizer, size + 2, tmp_path)
    ids = hf.get_vocab()
    assert name == "gpt-2"
    assert facts["ggml.tokens"][-3:] == ["user defined", f"[PAD{size}]", f"[PAD{size + 1}]"]
    assert facts["ggml.token_type"][-4:] == [3, 4, 5, 5]
    assert (facts["ggml.bos_token_id"], facts["ggml.eos_token_id"]) == (ids["<s>"], ids["<|endoftext|>"])
    assert (facts["ggml.unknown_token_id"], facts["ggml.eot_token_id"]) == (ids["<|endoftext|>"], 5)
    assert facts["chat_template"] == "{{ messages }}"
    assert facts["ggml.add_bos_token"] is False


def test_add_tokenizer_says_that_a_text_gets_a_beginning(tmp_path: Path) -> None:
    hf = byte_level(llama3=True)
    hf.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    tokenizer = load_tokenizer(save(tmp_path / "there", hf, "llama", config))
    name, facts = written(tokenizer, tokenizer.vocab_size, tmp_path)
    assert (name, facts["ggml.add_bos_token"]) == ("llama-bpe", True)


def qwen2() -> HFTokenizer:
    hf = byte_level(llama3=True)
    pattern = next(pattern for pattern, name in _PATTERNS.items() if name == "qwen2")
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    hf.normalizer, hf.pre_tokenizer = normalizers.NFC(), pre_tokenizers.Sequence(splits)
    return hf


def lowercase() -> HFTokenizer:
    hf = byte_level()
    hf.normalizer = normalizers.Lowercase()
    return hf


def prefixed() -> HFTokenizer:
    hf = byte_level()
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return hf


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (byte_level, "gpt-2"),
        (qwen2, "qwen2"),
        (lambda: byte_level(llama3=True), None),  # a pattern of its own
        (lowercase, None),
        (prefixed, None),
        (lambda: sentence_piece(form="llama2"), None),
        (unigram, None),
        (word_piece, None),
    ],
)
def test_pattern_of_knows_the_patterns_of_llama_cpp(make: Callable[[], HFTokenizer], name: str | None) -> None:
    assert pattern_of(json.loads(make().to_str())) == name


@pytest.mark.parametrize("spec", [None, "byte", "char"])
def test_add_tokenizer_says_that_there_is_none(spec: str | None, tmp_path: Path) -> None:
    tokenizer = None if spec is None else train_tokenizer(spec, ["abc"])
    assert written(tokenizer, 3, tmp_path)[0] is None
    assert written(tokenizer, 3, tmp_path)[1]["ggml.model"] == "none"
