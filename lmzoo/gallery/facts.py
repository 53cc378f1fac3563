"""Gathers what the page of a family shows: its registry entry, a model of a comparable size, and its source file."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from lmzoo import registry
from lmzoo.drawing import Drawing, draw
from lmzoo.entries import Family
from lmzoo.model import LanguageModel

PRESET = "1m"  # about the same number of parameters in every family, and the preset of results.json
VOCAB_SIZE = 256  # bytes, as in results.json
LENGTHS = (64, 256, 1024, 4096, 16384)  # tokens after which the state is measured


@dataclass(frozen=True)
class Facts:
    """Facts about a family. `model` is on the meta device: it can be counted and drawn, and has no weights."""

    family: Family
    name: str  # of `model`
    model: LanguageModel

    @property
    def title(self) -> str:
        """The name of the family as its paper writes it."""
        return str(self.family.facts.get("title", self.family.name))

    @cached_property
    def states(self) -> Mapping[int, int]:
        """Bytes of the decoding state of one row, by the number of tokens read."""
        return {length: self.model.state_bytes(length) for length in LENGTHS}

    @cached_property
    def drawing(self) -> Drawing:
        """The drawing of the model."""
        return draw(self.model)

    @cached_property
    def source(self) -> str:
        """The source of the file that registers the family; empty if it has none."""
        try:
            return inspect.getsource(sys.modules[type(self.model).__module__])
        except (OSError, TypeError, KeyError):
            return ""

    @property
    def file(self) -> str:
        """The path of that file from the folder of the package."""
        module = type(self.model).__module__
        return f"{module.replace('.', '/')}.py" if module.startswith("lmzoo.") else module

    @cached_property
    def settings(self) -> frozenset[str]:
        """The names of the settings of the family."""
        return frozenset(field.name for field in dataclasses.fields(self.model.config))


@cache
def gather(family_name: str) -> Facts:
    """Returns the facts of a family. Raises `UnknownModelError` for an unknown name."""
    family, _ = registry.split_name(family_name)
    name = f"{family.name}.{PRESET}" if PRESET in family.presets else family.name
    return Facts(family, name, registry.create_model(name, device="meta", vocab_size=VOCAB_SIZE))
