"""Says in words, for a terminal, what the page of a family shows beside its card and its drawing."""

from __future__ import annotations

from lmzoo import humanize
from lmzoo.gallery.checked import OF_FAMILIES, in_a_sentence
from lmzoo.gallery.differences import compared, counts, lines_of_both, sources
from lmzoo.gallery.facts import Facts
from lmzoo.gallery.imports import used
from lmzoo.gallery.measured import figures, made


def in_words(facts: Facts) -> dict[str, str]:
    """Returns the state by length, results, checks, code and differences of a family; what is unknown is empty."""
    states = ", ".join(f"{humanize.size(size)} at {length:,}" for length, size in facts.states.items())
    results = facts.family.results
    checks = in_a_sentence(results) or f"{len(OF_FAMILIES)}, which the test suite runs on every family"
    differs = [f"{name} ({counts(lines_of_both(sources()[name], facts.source))})" for name in compared(facts)]
    return {
        "state by tokens": states,
        "measured": ", ".join(f"{name} {value}" for name, value in figures(results).items()),
        "measured by": made(results) if figures(results) else "",
        "checks": f"{checks}; lmzoo check {facts.family.name}",
        "code": facts.file,
        "uses": ", ".join(used(facts.source)),
        "differs from": ", ".join(differs),
    }
