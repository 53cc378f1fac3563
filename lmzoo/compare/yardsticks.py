"""Losses that need no model: every token equally likely, and a general compressor.

Counted n-grams, which are yardsticks too, are in `ngram`.
"""

from __future__ import annotations

import lzma
import math

from lmzoo.compare.results import Yardstick
from lmzoo.data.store import TokenSplit
from lmzoo.data.tokenizers import Tokenizer

XZ_TOKENS = 4_000_000  # largest number of tokens that are compressed, which takes seconds for each million


def yardsticks(split: TokenSplit, tokenizer: Tokenizer) -> list[Yardstick]:
    """Return the yardsticks of the split that is reported."""
    bits_per_nat = split.n_tokens / (math.log(2) * split.n_bytes)
    uniform = math.log(tokenizer.vocab_size)
    compressed = xz_bits_per_byte(split, tokenizer)
    return [
        Yardstick(name="uniform", loss=uniform, bits_per_byte=uniform * bits_per_nat),
        Yardstick(name="xz", loss=compressed / bits_per_nat, bits_per_byte=compressed),
    ]


def xz_bits_per_byte(split: TokenSplit, tokenizer: Tokenizer) -> float:
    """Return the bits of the compressed text for each of its bytes, with lzma's preset 9.

    The text is compressed alone, without the training text; of a large split, its first `XZ_TOKENS` tokens.
    """
    text = tokenizer.decode(split.tokens[:XZ_TOKENS].tolist()).encode()
    return 8 * len(lzma.compress(text, preset=9)) / len(text)
