"""Chooses the families that a family is compared with, and shows what differs between two files."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path

import lmzoo
from lmzoo import registry
from lmzoo.gallery.facts import Facts

MOST = 3  # families that a page compares with
MOST_NAMED = 2  # of them those that its description names; the others have the most similar code


@cache
def sources() -> Mapping[str, str]:
    """Returns the source files of the built-in families by name."""
    folder = Path(lmzoo.__file__).parent / "backbones"
    files = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    return {path.stem: path.read_text(encoding="utf-8") for path in files}


def compared(facts: Facts) -> list[str]:
    """Returns the built-in families to compare a family with; none for a family without a source."""
    if not facts.source:
        return []
    chosen = named(facts)[:MOST_NAMED]
    return [*chosen, *(other for other in nearest(facts) if other not in chosen)][:MOST]


def named(facts: Facts) -> list[str]:
    """Returns the built-in families whose titles are in the summary of a family or the docstring of its file."""
    text = f"{facts.family.facts.get('summary', '')} {ast.get_docstring(ast.parse(facts.source)) or ''}"
    families = registry.families()
    titles = {name: str(families[name].facts.get("title", name)) for name in sources()}
    places = {name: re.search(rf"(?<![\w-]){re.escape(title)}(?![\w-])", text) for name, title in titles.items()}
    found = {name: place.start() for name, place in places.items() if place and name != facts.family.name}
    return sorted(found, key=found.__getitem__)


def nearest(facts: Facts) -> list[str]:
    """Returns the other built-in families, those with the most similar code first."""
    code = _code(facts.source)
    shares = {
        name: difflib.SequenceMatcher(None, code, _code(source), autojunk=False).ratio()
        for name, source in sources().items()
        if name != facts.family.name
    }
    return sorted(shares, key=lambda name: -shares[name])


@cache
def _code(source: str) -> tuple[str, ...]:
    """Returns the lines of a source without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return tuple(ast.unparse(tree).splitlines())


def lines_of_both(old: str, new: str) -> list[tuple[str, str]]:
    """Returns the lines of two sources, each with "-" (only in `old`), "+" (only in `new`) or " " (in both)."""
    before, after = old.splitlines(), new.splitlines()
    found: list[tuple[str, str]] = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            found += [(" ", line) for line in before[i1:i2]]
        else:
            found += [("-", line) for line in before[i1:i2]] + [("+", line) for line in after[j1:j2]]
    return found


def counts(lines: list[tuple[str, str]]) -> str:
    """Returns the number of lines that differ in words."""
    signs = [sign for sign, _ in lines]
    return f"{signs.count('-')} lines removed, {signs.count('+')} added"


def difference_html(lines: list[tuple[str, str]]) -> str:
    """Returns the lines of two sources as HTML."""
    tags = {"-": "del", "+": "ins", " ": "span"}
    shown = (f"<{tags[sign]}>{sign} {escape(text)}\n</{tags[sign]}>" for sign, text in lines)
    return f'<pre class="diff">{"".join(shown)}</pre>'
