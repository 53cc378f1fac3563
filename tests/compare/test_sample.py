"""Tests the text that a model writes for the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lmzoo.compare import sample
from lmzoo.compare.sample import write_sample
from lmzoo.data.corpora import load_corpus
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.runs.spec import RunSpec


def test_write_sample_follows_the_prompt_and_the_seed(text: Path, small_spec: Callable[..., RunSpec]) -> None:
    tokenizer = train_tokenizer("char", load_corpus(str(text)).chunks("train"))
    model, prompt = small_spec().make_model(tokenizer.vocab_size), tokenizer.encode("The ")
    found = [write_sample(model, tokenizer, prompt, seed) for seed in (1, 1, 2)]
    assert len(found[0]) == sample.SAMPLE_TOKENS, "without the prompt"
    assert found[0] == found[1] != found[2]
