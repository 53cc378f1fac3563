"""Tests of the tokenizers `char` and `byte`: ids, unknown characters, and their file."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lmzoo.data.tokenizers import Tokenizer, UnknownCharacterError, train_tokenizer


def _train(spec: str, text: str) -> Tokenizer:
    return train_tokenizer(spec, [text])


@pytest.mark.parametrize("unseen", ["é", "𠮷", "\x00"])
def test_char_tokenizer_names_an_unknown_character(unseen: str, chinese: str) -> None:
    tokenizer = _train("char", chinese)
    with pytest.raises(UnknownCharacterError) as caught:
        tokenizer.encode("书店" + unseen + "书")
    assert caught.value.position == 2
    assert caught.value.char == unseen
    for part in (repr(unseen), f"U+{ord(unseen):04X}", "position 2", "char+unk", "bpe:N"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    declared = _train("char+unk", chinese)
    assert declared.decode(declared.encode("书店" + unseen + "书")) == "书店\ufffd书"


DAMAGED = {
    "not JSON": ("{", "damaged JSON"),
    "not UTF-8": (b'{"lmzoo": "\xff"}', "byte offset 11"),
    "deep": ("[" * 100_000, "damaged JSON"),
    "a list": ("[]", "must be an object"),
    "unknown kind": ('{"lmzoo": "word", "version": 1}', "'word'"),
    "kind of a wrong type": ('{"lmzoo": [], "version": 1}', "lmzoo must be"),
    "unknown version": ('{"lmzoo": "byte", "version": 2}', "version must be 1"),
    "chars missing": ('{"lmzoo": "char", "version": 1, "unknown": false}', "chars must be a text"),
    "chars a list": ('{"lmzoo": "char", "version": 1, "unknown": false, "chars": ["a"]}', "chars must be a text"),
    "chars twice": ('{"lmzoo": "char", "version": 1, "unknown": false, "chars": "aab"}', "different characters"),
    "chars unsorted": ('{"lmzoo": "char", "version": 1, "unknown": false, "chars": "ba"}', "order"),
    "chars broken": ('{"lmzoo": "char", "version": 1, "unknown": false, "chars": "\\ud800"}', "surrogate"),
    "flag": ('{"lmzoo": "char", "version": 1, "unknown": 1, "chars": "ab"}', "unknown must be true or false"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_load_tokenizer_refuses_damaged_files_in_one_line(
    case: str, require_refused: Callable[[str, str], None]
) -> None:
    require_refused(*DAMAGED[case])
