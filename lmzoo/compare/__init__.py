"""Comparison of models with each other and with counted n-grams: one budget, one table, one report.

`lmzoo.compare(...)` is the function `lmzoo.api.compare`.
"""

from __future__ import annotations

from lmzoo.compare.comparison import compare
from lmzoo.compare.records import read_results
from lmzoo.compare.results import ModelResult, Reference, Results
from lmzoo.packages import make_callable

__all__ = ["ModelResult", "Reference", "Results", "compare", "read_results"]

make_callable(__name__)
