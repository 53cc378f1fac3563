"""Tests the losses that need no model."""

from __future__ import annotations

import lzma
import math

import pytest

from lmzoo.compare import yardsticks as module
from lmzoo.compare.yardsticks import xz_bits_per_byte, yardsticks
from lmzoo.data.store import TokenSplit
from lmzoo.data.tokenizers import train_tokenizer
from tests.helpers import TEXT

GREEK = TEXT.replace("cats", "γάτες")


@pytest.mark.parametrize("spec", ["char", "byte", "bpe:300"])
def test_yardsticks_convert_between_tokens_and_bytes(spec: str) -> None:
    tokenizer = train_tokenizer(spec, iter([GREEK]))
    ids = tokenizer.encode_array(GREEK)
    split = TokenSplit("", "val", ids, ids.size, len(GREEK.encode()), len(GREEK))
    uniform, xz = yardsticks(split, tokenizer)
    assert (uniform.name, xz.name) == ("uniform", "xz")
    assert uniform.loss == math.log(tokenizer.vocab_size)
    size = len(lzma.compress(GREEK.encode(), preset=9))
    assert xz.bits_per_byte == 8 * size / len(GREEK.encode())
    for found in (uniform, xz):  # both say how many bits the whole text takes
        bits = found.loss * ids.size / math.log(2)
        assert found.bits_per_byte * len(GREEK.encode()) == pytest.approx(bits, rel=1e-12)
    assert xz.loss * ids.size / math.log(2) == pytest.approx(8 * size, rel=1e-12)


def test_xz_bits_per_byte_compresses_the_first_tokens_of_a_large_split(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = train_tokenizer("char", iter([GREEK]))
    ids = tokenizer.encode_array(GREEK)
    monkeypatch.setattr(module, "XZ_TOKENS", 100)
    first = GREEK[:100].encode()
    split = TokenSplit("", "val", ids, ids.size, len(GREEK.encode()), len(GREEK))
    assert xz_bits_per_byte(split, tokenizer) == 8 * len(lzma.compress(first, preset=9)) / len(first)
