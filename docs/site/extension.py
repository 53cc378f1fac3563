"""What the site adds to Sphinx: a switch and a search for two languages, plain docstrings, and plots by Vega-Lite."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gallery_pages import write_vega
from search import SearchMixed
from sphinx.application import Sphinx

ENGLISH, CHINESE = "course/en/", "course/zh/"  # pages of the same name in both; the two READMEs have links of their own


def counterpart(page: str) -> str:
    """Returns the name that a page has in the other language, empty if it is in one language alone."""
    if page.startswith(ENGLISH):
        return page.replace(ENGLISH, CHINESE, 1)
    return page.replace(CHINESE, ENGLISH, 1) if page.startswith(CHINESE) else ""


def add_language(app: Sphinx, page: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    """Gives the template of a page its language, and the link to the same page in the other one."""
    other = counterpart(page)
    if page == "zh" or page.startswith(CHINESE):
        context["language"] = "zh-CN"
    if other in app.env.found_docs:
        context["other_language"] = {"page": other, "name": "中文" if other.startswith(CHINESE) else "English"}


def plain_docstring(_app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Escapes what is a sign of reStructuredText and none of Markdown: `|`, `*`, `_` at the end of a word.

    A letter after code, as in the plural of a name, must be parted from it by an escaped space.
    """
    for number, line in enumerate(lines):
        parts = re.split(r"(``?[^`]+``?)", line)
        parts[::2] = [re.sub(r"([|*\\]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
        parts[2::2] = [re.sub(r"^(?=\w)", r"\\ ", part) for part in parts[2::2]]
        lines[number] = "".join(parts)


def add_vega(app: Sphinx, error: Exception | None) -> None:
    """Adds the script that draws the plots to the built site."""
    if error is None:
        write_vega(Path(app.outdir) / "_static")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects the functions of this file to Sphinx."""
    app.add_search_language(SearchMixed)
    app.connect("html-page-context", add_language)
    app.connect("build-finished", add_vega)
    app.connect("autodoc-process-docstring", plain_docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
