"""Comparison of models with each other and with counted n-grams: one budget, one table, one report."""

from __future__ import annotations

from lmzoo.compare.comparison import compare
from lmzoo.compare.results import ModelResult, Reference, Results

__all__ = ["ModelResult", "Reference", "Results", "compare"]
