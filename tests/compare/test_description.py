"""Tests what is said of a comparison before its first run; the rest is tested with whole comparisons."""

from __future__ import annotations

import numpy as np
import pytest

from lmzoo.compare import description
from lmzoo.data.store import TokenSplit
from lmzoo.data.tokenizers import train_tokenizer


def test_entropy_rate_is_converted_to_nats_per_token() -> None:
    split = TokenSplit("markov1", "val", np.zeros(100, dtype=np.uint16), n_tokens=100, n_bytes=250, n_chars=250)
    rate = description._entropy_rate("hmm", split)
    assert rate is not None
    assert rate["nats"] == pytest.approx(2.5 * 1.2162191, rel=1e-6)
    assert 0 < rate["error"] < 2e-7


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("cut\na line of its own\nmore\n", "a line of its own"),
        (
            "a\nb\nthe first line that is long enough to be a prompt for all\nc\n",
            "the first line that is long enough to be",
        ),
        ("one line alone, which is longer than the prompt may be", "one line alone, which is longer than the"),
        ("short", "short"),
    ],
)
def test_beginning_is_a_whole_line_or_ends_with_a_word(text: str, prompt: str) -> None:
    tokenizer = train_tokenizer("char", iter([text]))
    ids = tokenizer.encode_array(text)
    split = TokenSplit("", "val", ids, ids.size, ids.size, ids.size)
    assert tokenizer.decode(description.beginning(split, tokenizer)) == prompt
