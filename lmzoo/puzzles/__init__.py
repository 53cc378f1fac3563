"""Puzzles for `lmzoo puzzle`: models with one fault each, whose loss falls nevertheless; `lmzoo check` finds the fault.

The correct models are in `sources`; they are read as text and never imported. The replaced lines, the hints and
the answers are in `puzzles.toml`.
"""

from __future__ import annotations

from lmzoo.puzzles.catalog import Puzzle, puzzle, puzzles

__all__ = ["Puzzle", "puzzle", "puzzles"]
