"""The areas of the fuzz run and the files that their cases start from."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lmzoo import registry
from lmzoo.runs.run import train_run
from lmzoo.runs.spec import make_spec
from tests.fuzz import calls, commands, contents, hugging_face, settings, texts, tools
from tests.fuzz.watch import FAULTS, Case, Place, run

TEXT = "".join(f"{i} sheep and {i * 7 % 13} goats went over the hill.\n" for i in range(200))


@dataclass(frozen=True)
class Area:
    """Cases of one kind, and how many of 1,000 are of this kind."""

    shows: str
    case: Callable[[random.Random, Place], Case]
    share: int


AREAS = {
    "command": Area("the command line in this process, with drawn options and files", commands.case, 150),
    "tools": Area("the commands around a trained model: export, import, transplant, reports", tools.case, 150),
    "process": Area("the command line as processes of their own, with a drawn environment", commands.process, 2),
    "settings": Area("settings of models and training, in Python, TOML and --set", settings.case, 150),
    "files": Area("a run, a tokenizer and a decoding state with changed files", contents.case, 128),
    "hf": Area(
        "checkpoints of transformers with changed configs, headers, indexes and tokenizers", hugging_face.case, 50
    ),
    "corpora": Area("folders of texts with files of every kind and name", contents.corpus_case, 50),
    "calls": Area("Python calls with arguments of every kind", calls.case, 220),
    "texts": Area("tokenizers, prompts and stop strings with any text", texts.case, 100),
}


@dataclass(frozen=True)
class Failure:
    """A case that broke a promise."""

    area: str
    number: int
    fault: str
    what: str
    details: str


def prepare(root: Path) -> Place:
    """Write the files that cases start from: a text and a small run on it."""
    place = Place(root)
    os.environ["LMZOO_CACHE"] = str(root / "cache")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_CACHE"] = str(root / "cache" / "hf")
    for family in registry.families():
        registry.model_class(family)  # imported once: the classes that a case registers are removed after it
    place.base.mkdir(parents=True)
    (place.base / "text.txt").write_text(TEXT)
    overrides = {key: int(value) for key, value in commands.SMALL.items()}
    train_run(make_spec("gpt2", str(place.base / "text.txt"), overrides=overrides), place.base / "run")
    hugging_face.prepare(place.base)
    tools.prepare(place.base)
    return place


def numbers(area: str, first: int, count: int) -> range:
    """Returns the numbers of the cases of an area among `count` cases of all areas from number `first` on."""
    share = AREAS[area].share
    return range(first * share // 1000, max((first + count) * share // 1000, first * share // 1000))


def fuzz(place: Place, seed: int, area: str, cases: range) -> Iterator[tuple[str, Failure | None]]:
    """Run cases; yields the outcome of each, and its failure if it broke a promise."""
    for number in cases:
        draw = random.Random(f"{seed} {area} {number}")
        what, outcome, details = run(lambda draw=draw: AREAS[area].case(draw, place), place)
        yield outcome, Failure(area, number, outcome, what, details) if outcome in FAULTS else None


def table(counts: dict[str, Counter[str]]) -> str:
    """Returns the table of outcomes by area."""
    columns = ("cases", "done", "refused", *FAULTS)
    lines = [" ".join([f"{'':9}", *(f"{column:>11}" for column in columns)])]
    total: Counter[str] = Counter()
    for name, found in counts.items():
        total += found
        lines.append(_line(name, found, columns))
    return "\n".join([*lines, _line("all", total, columns)])


def _line(name: str, found: Counter[str], columns: tuple[str, ...]) -> str:
    figures = [found.total() if column == "cases" else found[column] for column in columns]
    return " ".join([f"{name:9}", *(f"{figure:11,}" for figure in figures)])
