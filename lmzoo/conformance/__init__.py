"""Conformance checks that every backbone must pass: used by the tests, by `lmzoo check` and by `lmzoo compare`.

A wrong model still trains. The checks test what a model computes, not how it is built: they use the contract and the
registry, and know no architecture.
"""

from __future__ import annotations

from lmzoo.conformance.cache import cached_check, ranking_problem, ranking_report
from lmzoo.conformance.report import RANKING_GROUPS, Fault, Report, Result
from lmzoo.conformance.suite import CHECKS, Check, check_model, check_names, explanation, run_check
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
    "explanation",
    "ranking_problem",
    "ranking_report",
    "run_check",
    "subject",
]
