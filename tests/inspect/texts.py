"""Small models with a tokenizer, and inspections of texts by them, for the tests of the page."""

from __future__ import annotations

from lmzoo.conformance import subject
from lmzoo.data.tokenizers import CharTokenizer
from lmzoo.inspect.inspection import Inspection, examine

CHARS = "ab<>&\n \"'/cdefghijklmnopqrstuvwxyz"
HOSTILE = "</script><b>&\"' a\n"  # must be text wherever it is shown


def inspected(family: str, text: str = HOSTILE, *, name: str | None = None, **settings: object) -> Inspection:
    """Inspect a text by a tiny model of the family, whose weights are not trained."""
    tokenizer = CharTokenizer(CHARS)
    model = subject(family).model(vocab_size=tokenizer.vocab_size, context_length=32, **settings)
    return examine(model, tokenizer, text, name=name)
