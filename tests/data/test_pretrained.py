"""Tests that any tokenizer.json encodes and decodes as in transformers: special tokens, prefixes, byte fallback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # no downloads

import numpy as np
import pytest
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as HFTokenizer
from transformers import PreTrainedTokenizerFast

from lmzoo.data.bpe import BPETokenizer
from lmzoo.data.pretrained import PretrainedTokenizer
from lmzoo.data.tokenizers import load_tokenizer
from lmzoo.errors import DataError

TEXTS = [
    "Hello, world",
    "  two spaces  and\n\nlines\t",
    "中文，你好。",
    "caf\u00e9 cafe\u0301 \U0001f469\u200d\U0001f4bb",
    "<s>special</s> a <s> b",
    "",
    "x",
]
WORDS = ["Hello", "world", "two", "space", "he", "ll", "wor", "ld", "a", "b", "中", "文"]


def _with_beginning(hf: HFTokenizer) -> HFTokenizer:
    hf.add_special_tokens(["<s>", "</s>"])
    ids = [("<s>", hf.token_to_id("<s>"))]
    hf.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=ids)
    return hf


def byte_level() -> HFTokenizer:
    """Byte-level BPE as in Llama 3: a pattern of its own, and a token at the beginning."""
    vocab = {name: index for index, name in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    hf = HFTokenizer(models.BPE(vocab={**vocab, "he": 256, "Ġa": 257}, merges=[("h", "e"), ("Ġ", "a")]))
    split = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}{1,3}|\s+|[^\s\p{L}\p{N}]+"), "isolated")
    hf.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    hf.decoder = decoders.ByteLevel()
    return _with_beginning(hf)


def byte_fallback() -> HFTokenizer:
    """SentencePiece BPE as in Llama 2: a space before the text, and bytes for unknown characters."""
    vocab = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}}
    for piece in ("▁", *"HelowrdaspcnitxbNZ,", "中", "文", "▁a", "ll"):
        vocab.setdefault(piece, len(vocab))
    merges = [("▁", "a"), ("l", "l")]
    hf = HFTokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    hf.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    hf.decoder = decoders.Sequence(parts)
    return _with_beginning(hf)


def unigram() -> HFTokenizer:
    """SentencePiece's unigram model as in T5."""
    pieces = [("<unk>", 0.0), ("▁", -2.0), *((f"▁{word}", -3.0) for word in WORDS), *((c, -4.0) for c in "Helowrdabc,")]
    hf = HFTokenizer(models.Unigram(pieces, unk_id=0))
    hf.pre_tokenizer, hf.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return _with_beginning(hf)


def word_piece() -> HFTokenizer:
    """WordPiece as in BERT, which changes a text."""
    names = ["[UNK]", *(word.lower() for word in WORDS), *(f"##{char}" for char in "abcdelorsw"), *"helowrdspca,.<>/"]
    hf = HFTokenizer(models.WordPiece({name: i for i, name in enumerate(dict.fromkeys(names))}, unk_token="[UNK]"))
    hf.normalizer, hf.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    hf.decoder = decoders.WordPiece(cleanup=False)
    return _with_beginning(hf)


KINDS: dict[str, Callable[[], HFTokenizer]] = {
    "byte level": byte_level,
    "byte fallback": byte_fallback,
    "unigram": unigram,
    "word piece": word_piece,
}


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[PretrainedTokenizer, PreTrainedTokenizerFast]:
    """Our tokenizer and transformers' of the same file."""
    file = tmp_path / "tokenizer.json"
    KINDS[request.param]().save(str(file))
    ours = load_tokenizer(file)
    assert isinstance(ours, PretrainedTokenizer)
    return ours, PreTrainedTokenizerFast(tokenizer_file=str(file))


@pytest.mark.parametrize("text", TEXTS)
def test_pretrained_equals_transformers(pair: tuple[PretrainedTokenizer, PreTrainedTokenizerFast], text: str) -> None:
    ours, theirs = pair
    ids = theirs(text)["input_ids"]
    assert ours.encode(text) == ids
    assert ours.decode(ids) == theirs.decode(ids)
    assert ours.encode_array(text).tolist() == theirs(text, add_special_tokens=False)["input_ids"]
    plain = [token for token in ids if token not in ours.special_tokens]
    assert ours.decode(plain) == theirs.decode(ids, skip_special_tokens=True)


def test_pretrained_stream_equals_decode(pair: tuple[PretrainedTokenizer, PreTrainedTokenizerFast]) -> None:
    """Also for tokens in a random order, of which many are no complete character."""
    ours, _ = pair
    draw = np.random.default_rng(0)
    cases = [ours.encode(text) for text in TEXTS]
    cases += [draw.integers(ours.vocab_size, size=200).tolist() for _ in range(3)]
    for ids in cases:
        stream = ours.stream()
        pieces = [stream.feed(token) for token in ids]
        assert "".join(pieces) + stream.finish() == ours.decode(ids)


def test_pretrained_stream_holds_back_incomplete_characters() -> None:
    ours = PretrainedTokenizer(byte_fallback(), "{}")
    stream, ids = ours.stream(), ours.encode("é\na")
    assert [stream.feed(token) for token in ids] == ["<s>", " ", "", "", "", "é\na"]
    assert stream.finish() == ""


def test_pretrained_token_bytes_are_those_within_a_text() -> None:
    fallback, level = PretrainedTokenizer(byte_fallback(), "{}"), PretrainedTokenizer(byte_level(), "{}")
    assert fallback.token_bytes(1 + 0xE4) == b"\xe4"
    assert fallback.token_bytes(fallback.encode("a")[1]) == b" a"
    assert level.token_bytes(257) == b" a"
    assert level.token_bytes(level.encode("<s>")[0]) == b"<s>"


def test_pretrained_for_model_takes_padded_and_smaller_vocabularies() -> None:
    natural = PretrainedTokenizer(byte_level(), "{}")
    assert natural.vocab_size == 260
    padded = natural.for_model(300)
    assert (padded.vocab_size, padded.encode("a"), padded.decode([299, 64])) == (300, natural.encode("a"), "a")
    assert padded.token_bytes(299) == b""
    with pytest.raises(DataError, match=r"the token '</s>' has the id 259: the model has vocab_size=259$"):
        natural.for_model(259).encode("a</s>")
    for tokenizer, token in ((natural, 260), (padded, 300), (padded, -1)):
        with pytest.raises(DataError, match="out of range"):
            tokenizer.decode([token])


def test_pretrained_is_saved_as_it_is(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    text = (tmp_path / "tokenizer.json").read_text()
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == text


def test_pretrained_is_not_used_for_plain_byte_level_bpe(tmp_path: Path) -> None:
    """GPT-2's file: its text is cut, encoded on every core, and decoded exactly."""
    hf = byte_level()
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.post_processor = processors.ByteLevel(trim_offsets=False)
    hf.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    assert isinstance(ours, BPETokenizer)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        assert ours.encode(text) == theirs(text)["input_ids"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "model must be an object"),
        (json.dumps({"model": {"type": "BPE", "dropout": 0.5}}), "dropout must be null"),
        (json.dumps({"model": {"type": "Nothing"}}), "not a tokenizer"),
        (json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}), "not a tokenizer"),
    ],
)
def test_pretrained_refuses_damaged_files_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=message):
        load_tokenizer(tmp_path)


def test_pretrained_stream_goes_on_after_a_prompt(pair: tuple[PretrainedTokenizer, PreTrainedTokenizerFast]) -> None:
    """SentencePiece removes the space at the beginning of a text, and not of the text that follows a prompt."""
    ours, theirs = pair
    for text in TEXTS:
        ids = [*ours.encode("Hello two"), *ours.encode_array(text).tolist()]
        size = len(ours.encode("Hello two"))
        stream = ours.stream(ids[:size])
        new = "".join(map(stream.feed, ids[size:])) + stream.finish()
        assert theirs.decode(ids[:size]) + new == theirs.decode(ids)


def test_pretrained_refuses_a_text_that_the_library_cannot_encode() -> None:
    hf = HFTokenizer(models.WordLevel({"a": 0}, unk_token="<unk>"))
    with pytest.raises(DataError, match=r"Missing .* token from the vocabulary"):
        PretrainedTokenizer(hf, hf.to_str()).encode("b")
