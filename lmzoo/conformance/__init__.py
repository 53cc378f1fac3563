"""The checks every backbone must pass, as functions: used by the tests, by `lmzoo check`, and by `compare`.

A wrong model still trains. These checks look at what it computes, not at how it is built: they know the contract and
the registry, and no architecture.
"""

from __future__ import annotations

from lmzoo.conformance.cache import cached_check, ranking_problem
from lmzoo.conformance.report import RANKING_GROUPS, Fault, Report, Result
from lmzoo.conformance.suite import CHECKS, Check, check_model, check_names, run_check
from lmzoo.conformance.tiny import Subject, subject

__all__ = [
    "CHECKS",
    "RANKING_GROUPS",
    "Check",
    "Fault",
    "Report",
    "Result",
    "Subject",
    "cached_check",
    "check_model",
    "check_names",
    "ranking_problem",
    "run_check",
    "subject",
]
