"""Reproduces results of papers: recipes with expected bands, run by the engines of probes and comparisons."""

from __future__ import annotations

from lmzoo.reproducing.recipe import Recipe, find_recipe, list_recipes
from lmzoo.reproducing.run import reproduce
from lmzoo.reproducing.verdicts import Reproduction, Verdict

__all__ = ["Recipe", "Reproduction", "Verdict", "find_recipe", "list_recipes", "reproduce"]
