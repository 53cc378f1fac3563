"""Tests that a folder of transformers gives the tokens that AutoTokenizer gives, whatever its files say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, normalizers
from tokenizers import Tokenizer as HFTokenizer
from transformers import AutoTokenizer

from lmzoo.data.tokenizers import load_tokenizer
from lmzoo.errors import DataError
from tests.data.published import (
    TEXTS,
    byte_level,
    fairseq,
    save,
    sentence_piece,
    unigram,
    word_piece,
    words_with_ends,
)

Config = Mapping[str, Any]
GPT2 = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
LLAMA = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
FAST = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
# Another `normalized` than in tokenizer.json is left out: `tokenizers` then goes on decoding by the flag of the file.
MARK = {"content": "<mark>", "lstrip": True, "rstrip": False, "normalized": True, "single_word": False}
ADDED = {
    "1": {"content": "<s>", "lstrip": False, "rstrip": True, "normalized": False, "special": True},
    "320": {**MARK, "special": False},
}


def llama2() -> HFTokenizer:
    return sentence_piece(form="llama2")


def metaspace() -> HFTokenizer:
    return sentence_piece(form="metaspace")


def gemma() -> HFTokenizer:
    return sentence_piece(form="gemma")


def llama3() -> HFTokenizer:
    return byte_level(llama3=True)


def cleaned() -> HFTokenizer:
    return word_piece(cleanup=True)


def first_gpt() -> HFTokenizer:
    return words_with_ends(post=True)


def mapped() -> HFTokenizer:
    """With a map of characters, which here changes none."""
    hf = fairseq()
    empty = (1024).to_bytes(4, "little") + bytes(1024)
    hf.normalizer = normalizers.Sequence([normalizers.Precompiled(empty), normalizers.NFC()])
    return hf


def stripping() -> HFTokenizer:
    """A token that takes the spaces beside it: some classes add it again, without this."""
    hf = llama3()
    hf.add_special_tokens([AddedToken("<mark>", lstrip=True, rstrip=True), AddedToken("<b>", lstrip=True)])
    return hf


CASES: dict[str, tuple[Callable[[], HFTokenizer], str, Config | None, dict[str, Config]]] = {
    "gpt2": (byte_level, "gpt2", GPT2, {}),
    "gpt2 prefix": (byte_level, "gpt2", {**GPT2, "add_prefix_space": True}, {}),
    "gpt2 beginning": (byte_level, "gpt2", {**GPT2, "add_bos_token": True, "add_eos_token": True}, {}),
    "gpt2 without": (byte_level, "gpt2", None, {}),
    "gpt2 as it is": (llama3, "gpt2", {**FAST, "add_prefix_space": True, "add_eos_token": True}, {}),
    "opt": (llama3, "opt", {"tokenizer_class": "GPT2Tokenizer", "bos_token": "</s>", "add_bos_token": True}, {}),
    "phi": (byte_level, "phi", {"tokenizer_class": "CodeGenTokenizer", "add_prefix_space": True}, {}),
    "neox": (llama3, "gpt_neox", {"tokenizer_class": "GPTNeoXTokenizerFast", "add_bos_token": True}, {}),
    "mamba without": (llama3, "mamba", None, {}),
    "cohere": (llama3, "cohere", {"tokenizer_class": "CohereTokenizerFast", "bos_token": "<s>"}, {}),
    "llama 3": (llama3, "llama", FAST, {}),
    "llama 3 named llama": (llama3, "llama", {**LLAMA, "tokenizer_class": "LlamaTokenizerFast"}, {}),
    "llama without": (llama2, "llama", None, {}),
    "qwen2": (llama3, "qwen2", {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}, {}),
    "qwen2 corrected": (llama3, "qwen2", FAST, {}),
    "qwen3": (llama3, "qwen3", {"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": True}, {}),
    "qwen3 as it is": (llama3, "qwen3", FAST, {}),
    "qwen3.5": (llama3, "qwen3_5_text", {"tokenizer_class": "Qwen2Tokenizer"}, {}),
    "qwen3.5 without": (llama3, "qwen3_5_text", None, {}),
    "llama 2": (llama2, "llama", {**LLAMA, "legacy": False}, {}),
    "llama 2 legacy": (llama2, "llama", {**LLAMA, "legacy": True, "add_eos_token": True}, {}),
    "llama 2 legacy null": (llama2, "llama", {**LLAMA, "legacy": None, "add_prefix_space": None}, {}),
    "llama 2 no prefix": (llama2, "llama", {**LLAMA, "add_prefix_space": False}, {}),
    "llama 2 as it is": (llama2, "llama", {**FAST, "legacy": True, "add_prefix_space": False}, {}),
    "llama 2 unknown class": (llama2, "llama", {**LLAMA, "tokenizer_class": "MyTokenizer"}, {}),
    "mistral": (llama2, "mistral", {**LLAMA, "legacy": True}, {}),
    "mistral metaspace": (metaspace, "mistral", {**LLAMA, "add_prefix_space": True}, {}),
    "metaspace": (metaspace, "llama", {**LLAMA, "legacy": True}, {}),
    "gemma": (gemma, "gemma2", {"tokenizer_class": "GemmaTokenizer", "bos_token": "<s>"}, {}),
    "gemma prefix": (gemma, "gemma3_text", {"tokenizer_class": "GemmaTokenizerFast", "add_prefix_space": True}, {}),
    "phi3 corrected": (llama2, "phi3", {**LLAMA, "legacy": True}, {}),
    "added": (llama2, "llama", {**LLAMA, "added_tokens_decoder": ADDED}, {}),
    "added as it is": (llama2, "llama", {**FAST, "added_tokens_decoder": ADDED}, {}),
    "added and named": (
        llama2,
        "llama",
        {**LLAMA, "added_tokens_decoder": ADDED, "pad_token": "<mark>", "split_special_tokens": True},
        {},
    ),
    "special map": (llama2, "llama", FAST, {"special_tokens_map": {"eos_token": MARK}}),
    "added file": (llama2, "llama", LLAMA, {"added_tokens": {"<new>": 400, "hello": 401}}),
    "new special": (llama2, "llama", {**FAST, "pad_token": "hello", "image_token": "<|im_end|>"}, {}),
    "new extra": (llama3, "llama", {**FAST, "additional_special_tokens": ["<mark>", "hello"]}, {}),
    "new extra named": (llama3, "llama", {**FAST, "extra_special_tokens": {"note_token": "hello"}}, {}),
    "new extra and named": (
        llama3,
        "llama",
        {**FAST, "additional_special_tokens": ["<mark>"], "extra_special_tokens": {"note_token": "hello"}},
        {},
    ),
    "openai-gpt": (words_with_ends, "openai-gpt", {"tokenizer_class": "OpenAIGPTTokenizer"}, {}),
    "openai-gpt without": (first_gpt, "openai-gpt", None, {}),
    "openai-gpt as it is": (first_gpt, "openai-gpt", FAST, {}),
    "xglm": (fairseq, "xglm", {"tokenizer_class": "XGLMTokenizer", "additional_special_tokens": ["<madeupword0>"]}, {}),
    "xglm without": (mapped, "xglm", None, {}),
    "xglm no prefix": (fairseq, "xglm", {"tokenizer_class": "XGLMTokenizerFast", "add_prefix_space": False}, {}),
    "cohere again": (
        stripping,
        "cohere",
        {"tokenizer_class": "CohereTokenizerFast", "additional_special_tokens": ["<mark>"], "bos_token": "<b>"},
        {},
    ),
    "qwen2 again": (stripping, "qwen2", {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<mark>"}, {}),
    "split": (llama2, "llama", {**FAST, "split_special_tokens": True}, {}),
    "split gpt2": (byte_level, "gpt2", {**GPT2, "split_special_tokens": True}, {}),
    "clean BPE": (llama2, "llama", {**FAST, "clean_up_tokenization_spaces": True}, {}),
    "unigram": (unigram, "llama", FAST, {}),
    "unigram clean": (unigram, "llama", {**FAST, "clean_up_tokenization_spaces": True}, {}),
    "word piece": (word_piece, "llama", FAST, {}),
    "word piece clean": (word_piece, "llama", {**FAST, "clean_up_tokenization_spaces": True}, {}),
    "word piece cleanup": (cleaned, "llama", {**FAST, "clean_up_tokenization_spaces": True}, {}),
}
CORRUPTING = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
CASES["clean BPE anyway"] = (byte_level, "gpt2", {**GPT2, "clean_up_tokenization_spaces": True, CORRUPTING: True}, {})


@pytest.mark.parametrize("case", CASES)
def test_read_conventions_gives_the_tokens_of_auto_tokenizer(case: str, tmp_path: Path) -> None:
    make, model_type, config, others = CASES[case]
    folder = save(tmp_path / "there", make(), model_type, config, **others)
    theirs, ours = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    assert ours.vocab_size == 1 + max(theirs.get_vocab().values())
    again = tmp_path / "again"
    again.mkdir()
    ours.save(again)
    reloaded = load_tokenizer(again)
    assert reloaded.files() == ours.files()
    draw = np.random.default_rng(0)
    streams = [draw.integers(ours.vocab_size, size=150).tolist() for _ in range(3)]
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids, text
        assert ours.encode_array(text).tolist() == theirs(text, add_special_tokens=False)["input_ids"], text
        assert reloaded.encode(text) == ids, text
        streams.append(ids)
    for ids in streams:
        decoded = theirs.decode(ids)
        assert ours.decode(ids) == decoded
        assert reloaded.decode(ids) == decoded
        stream = ours.stream()
        assert "".join(map(stream.feed, ids)) + stream.finish() == decoded


def test_read_conventions_leaves_a_file_that_is_used_as_it_is(tmp_path: Path) -> None:
    folder = save(tmp_path, llama3(), "llama", FAST)
    assert load_tokenizer(folder).to_json() == (folder / "tokenizer.json").read_text()
    assert load_tokenizer(folder / "tokenizer.json").conventions.chat.tokens == {}  # a file alone is taken as it is


@pytest.mark.parametrize(
    ("config", "others", "message"),
    [
        (
            {"tokenizer_class": "BertTokenizerFast"},
            {},
            "tokenizer_class='BertTokenizerFast' changes tokenizer.json in a",
        ),
        ({"tokenizer_class": 3}, {}, "tokenizer_class=3 must be a text"),
        ({"tokenizer_class": "LlamaTokenizer"}, {}, "tokenizer_class='LlamaTokenizer' needs a BPE model"),
        ({"tokenizer_class": "BioGptTokenizer"}, {}, "tokenizer_class='BioGptTokenizer' changes tokenizer.json"),
        ({"fix_mistral_regex": True}, {}, "fix_mistral_regex must be false"),
        ({"split_special_tokens": "no"}, {}, "split_special_tokens='no' must be true or false"),
        ({"bos_token": 3}, {}, "bos_token has 3, which must be an object with content"),
        ({"bos_token": {"content": "a", "lstrip": 1}}, {}, "lstrip must be true or false"),
        ({"added_tokens_decoder": []}, {}, r"added_tokens_decoder=\[\] must be an object"),
        ({"added_tokens_decoder": {"x": {"content": "a"}}}, {}, "the key 'x', which must be a token id"),
        ({"extra_special_tokens": "a"}, {}, "extra_special_tokens='a' must be a list"),
        ({"chat_template": 3}, {}, "chat_template must be a text"),
        ({}, {"added_tokens": {"a": "b"}}, "added_tokens.json has 'a': 'b', which must be a token id"),
        (
            {},
            {"generation_config": {"eos_token_id": "x"}},
            "generation_config.json: eos_token_id='x' must be a token id",
        ),
    ],
)
def test_read_conventions_refuses_in_one_line(
    config: Config, others: dict[str, Config], message: str, tmp_path: Path
) -> None:
    folder = save(tmp_path, unigram(), "llama", config, **others)
    with pytest.raises(DataError, match=message) as caught:
        load_tokenizer(folder)
    assert "\n" not in str(caught.value)


def test_read_conventions_refuses_damaged_files(tmp_path: Path) -> None:
    folder = save(tmp_path, unigram(), "llama", {})
    for content, message in (("[]", "must hold a JSON object"), ("{", "is not JSON"), ("\x00", "is not JSON")):
        (folder / "tokenizer_config.json").write_text(content)
        with pytest.raises(DataError, match=f"tokenizer_config.json: {message}"):
            load_tokenizer(folder)


def test_read_conventions_finds_the_tokens_that_end_a_text(tmp_path: Path) -> None:
    folder = save(tmp_path, llama2(), "llama", FAST)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": 2}))
    assert load_tokenizer(folder).stop_tokens == (2,)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 5, 100_000]}))
    assert load_tokenizer(folder).stop_tokens == (2, 5)  # no token of the model: it cannot come
    assert load_tokenizer(folder).conventions.stop_tokens == (2, 5, 100_000)


def test_read_conventions_finds_chat_templates(tmp_path: Path) -> None:
    """A file goes before the key, as in transformers; several have names."""
    folder = save(tmp_path, llama2(), "llama", {**FAST, "chat_template": "one"})
    for change, expected in (
        (lambda: None, "one"),
        (lambda: (folder / "chat_template.jinja").write_text("two"), "two"),
        (lambda: (folder / "additional_chat_templates").mkdir(), "two"),
        (
            lambda: (folder / "additional_chat_templates" / "tool_use.jinja").write_text("three"),
            {"default": "two", "tool_use": "three"},
        ),
    ):
        change()
        theirs, ours = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
        assert theirs.chat_template == expected
        assert ours.conventions.chat.templates == ({"default": expected} if isinstance(expected, str) else expected)
        assert ours.conventions.chat.tokens == theirs.special_tokens_map
    named = [{"name": "default", "template": "four"}, {"name": "rag", "template": "five"}]
    other = save(tmp_path / "other", llama2(), "llama", {**FAST, "chat_template": named})
    assert load_tokenizer(other).conventions.chat.templates == {"default": "four", "rag": "five"}
