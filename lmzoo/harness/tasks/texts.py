"""The data of the tasks: functions that the task files name. Every call returns the same rows.

`lm_eval` reads this file by its path, so it imports only modules of lmzoo.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import cache
from typing import Any

from datasets import Dataset

from lmzoo.data import load_corpus

_SEED = 0
_WORDS = re.compile(r"[A-Za-z]{4,}")
_COLORS = ("red", "blue", "green", "black", "white", "brown", "gray", "pink")


def documents(count: int = 40, **_: Any) -> dict[str, Dataset]:
    """Returns documents of the validation split of `pydocs`: the field `text`."""
    chosen = random.Random(_SEED).sample(_documents(), count)
    return {"test": Dataset.from_list([{"text": text} for text in chosen])}


def next_words(count: int = 200, **_: Any) -> dict[str, Dataset]:
    """Returns texts that end before a word, and four words: the right one and three that are about as frequent.

    Fields: `context`, `choices` (each with the space before it), `answer` (the index of the right one).
    """
    draw = random.Random(_SEED)
    frequent = [word for word, times in Counter(_WORDS.findall("\n".join(_documents()))).most_common() if times > 3]
    rank = {word: i for i, word in enumerate(frequent)}
    rows: list[dict[str, Any]] = []
    for text in draw.sample(_documents(), count):
        after_space = (match for match in _WORDS.finditer(text) if text[match.start() - 1] == " ")
        found = [match for match in after_space if match.start() > 40 and match[0] in rank]
        if not found:
            continue
        match = draw.choice(found)
        neighbors = frequent[max(0, rank[match[0]] - 20) :][:41]  # about as frequent as the right word
        words = [match[0], *draw.sample([word for word in neighbors if word != match[0]], 3)]
        draw.shuffle(words)
        context = text[max(0, match.start() - 400) : match.start() - 1]  # without the space, which the choices have
        choices = [f" {word}" for word in words]
        rows.append({"context": context, "choices": choices, "answer": words.index(match[0])})
    return {"test": Dataset.from_list(rows)}


def copies(count: int = 50, **_: Any) -> dict[str, Dataset]:
    """Returns lists of words, twice each, of which the last is to be repeated: fields `context`, `answer`."""
    draw = random.Random(_SEED)
    rows: list[dict[str, Any]] = []
    for _row in range(count):
        lines = [" ".join(draw.sample(_COLORS, 3)) for _line in range(4)]
        shown = "".join(f"{line}; {line}\n" for line in lines[:3])
        rows.append({"context": f"{shown}{lines[3]};", "answer": f" {lines[3]}"})
    return {"test": Dataset.from_list(rows)}


@cache
def _documents() -> list[str]:
    """Returns the documents of the validation split that have at least 200 characters."""
    documents = ("".join(chunks).strip() for chunks in load_corpus("pydocs").val.document_chunks())
    return [text for text in documents if len(text) >= 200]
