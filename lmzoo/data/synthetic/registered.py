"""The synthetic sources by name, and their texts as files in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from lmzoo.data.cache import cache_dir, cache_file
from lmzoo.data.synthetic.grammar import Grammar
from lmzoo.data.synthetic.hidden_markov import HiddenMarkov
from lmzoo.data.synthetic.markov import Markov
from lmzoo.data.synthetic.source import EntropyRate, Source
from lmzoo.data.text import file_span, scan
from lmzoo.errors import DataError

CHARACTERS = 500_000  # in each text; all characters are ASCII
SEED = 0
SOURCES: dict[str, Callable[[], Source]] = {
    "grammar": Grammar,
    "hmm": HiddenMarkov,
    "markov1": lambda: Markov(1),
    "markov2": lambda: Markov(2),
    "markov3": lambda: Markov(3),
}
SHA256 = {  # of the texts, which are the same everywhere
    "grammar": "4f121620569172e1cd2c56cc5bfcc4692471bb11c39067bb39285ad90690f3a4",
    "hmm": "3f866e05cd2d7920da5896d0bc692524df764d8b0517c4483863297c561add2d",
    "markov1": "2349da03dd2da5e506336c878635d470e6b2753d4c9971ffe1b21137660ac000",
    "markov2": "398c02210ba5d89c5bececadbf836eb35c8e8c5006b0b0ec98095466e0fc5cba",
    "markov3": "d1421d3f5b532813984e92d17d973c702ae9ac2aef6bc4356fdd5d98fb5f89b1",
}


def entropy_rate(data: str) -> EntropyRate | None:
    """Returns the entropy rate of the corpus that `--data` names; None for a text whose rate is not known."""
    return SOURCES[data]().entropy_rate() if data in SOURCES else None


def source_text(name: str) -> Path:
    """Returns the file with the text of a source: made on first use (a second), cached, checked by its hash.

    Raises `DataError` when the cache cannot be written.
    """
    path = cache_dir("corpora") / f"{name}-{SHA256[name][:16]}.txt"
    if path.is_file() and scan([file_span(path)]).sha256 == SHA256[name]:
        return path
    text = SOURCES[name]().text(SEED, CHARACTERS).encode()
    found = hashlib.sha256(text).hexdigest()
    if found != SHA256[name]:
        raise DataError(f"{name}: the text made here has the SHA-256 {found}, not {SHA256[name]}: report this")
    with cache_file(path) as write:
        write(text)
    return path
