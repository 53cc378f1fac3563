"""Shows which checks a family passed, from its results.json, and all checks that there are."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from lmzoo import humanize
from lmzoo.conformance import CHECKS, explanation
from lmzoo.entries import Family
from lmzoo.gallery.measured import table

OF_FAMILIES = [check for check in CHECKS if not check.needs_instance]
MARKS = {True: "✓ ", False: "✗ ", None: ""}


def outcomes(results: Mapping[str, Any]) -> dict[str, bool]:
    """Returns whether the family passed each check of results.json; the file of a user's registry may hold anything."""
    passed = table(table(results, "checks"), "passed")
    return {name: value for name, value in passed.items() if isinstance(value, bool)}


def in_a_sentence(results: Mapping[str, Any]) -> str:
    """Returns how many checks the family passed, when and with what; empty if results.json does not say."""
    found = outcomes(results)
    if not found:
        return ""
    failed = [name for name, passed in found.items() if not passed]
    record = table(results, "checks")
    versions = table(record, "versions")
    words = [
        f"passed {len(found) - len(failed)} of {len(found)} checks on {record.get('date', '?')}",
        f"lmzoo {versions.get('lmzoo', '?')} at {str(record.get('commit') or '?')[:7]}",
        f"torch {versions.get('torch', '?')}",
        f"failed: {', '.join(failed)}" if failed else "",
    ]
    return humanize.line(", ".join(word for word in words if word))


def checks_html(family: Family) -> str:
    """Returns the section of the checks of a family: which ones it passed, and all of them by group."""
    found, sentence = outcomes(family.results), in_a_sentence(family.results)
    groups: dict[str, list[str]] = {}
    for check in OF_FAMILIES:
        groups.setdefault(check.group, []).append(_item(check.name, found.get(check.name)))
    rows = "".join(f"<tr><th>{escape(group)}</th><td>{' '.join(items)}</td></tr>" for group, items in groups.items())
    return (
        f"{f'<p>The family {escape(sentence)}.</p>' if sentence else ''}"
        "<p>The test suite of lmzoo runs these checks on every family, and no family has an exception. "
        f"<code>lmzoo check {escape(family.name)}</code> repeats them here, and "
        "<code>lmzoo check --explain NAME</code> says what a check does.</p>"
        f'<table class="figures checks">{rows}</table>'
    )


def _item(name: str, passed: bool | None) -> str:
    return f'<span title="{escape(explanation(name))}">{MARKS[passed]}<code>{escape(name)}</code></span>'
