"""Puzzles: models with one fault each, whose loss falls all the same; `lmzoo puzzle` shows them, `lmzoo check` decides.

The sound models are in `sources`, as text that is never imported from there. What is replaced in them, the hints and
the answers are in `puzzles.toml`.
"""

from __future__ import annotations

from lmzoo.puzzles.catalog import Puzzle, puzzle, puzzles

__all__ = ["Puzzle", "puzzle", "puzzles"]
