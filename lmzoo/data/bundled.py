"""Texts that lie in the package: short ones, written for lmzoo, for examples in a language that the others lack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# "story-zh" is a story in Chinese about a typesetter who counts which character follows which.
BUNDLED: Mapping[str, Path] = {"story-zh": Path(__file__).parent / "texts" / "story-zh.txt"}
