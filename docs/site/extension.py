"""Extends Sphinx: two languages, notebooks, formulas as MathML, plain docstrings, plots by Vega-Lite."""

from __future__ import annotations

import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any

from chinese import mark_emphasis, translate
from docutils import nodes
from gallery_pages import write_vega
from latex2mathml.converter import convert
from search import SearchMixed
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder

ENGLISH, CHINESE = "course/en/", "course/zh/"  # pages of the same name in both; the two READMEs have links of their own

SHORT, LONG = 16, 45  # columns of a cell; a Chinese character has two


def counterpart(page: str) -> str:
    """Returns the name that a page has in the other language, empty if it is in one language alone."""
    if page.startswith(ENGLISH):
        return page.replace(ENGLISH, CHINESE, 1)
    return page.replace(CHINESE, ENGLISH, 1) if page.startswith(CHINESE) else ""


def language(page: str) -> str:
    """Returns the language of a page."""
    return "zh-CN" if page == "zh" or page.startswith(CHINESE) else "en"


def add_links(app: Sphinx, page: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    """Gives the template of a page its language, the link to the same page in the other one, and its notebook."""
    other = counterpart(page)
    if language(page) != "en":
        context["language"] = language(page)
        translate(context)
    assert isinstance(app.builder, StandaloneHTMLBuilder)
    _parents, *neighbors = app.builder.relations.get(page, (None, None, None))
    for name, neighbor in zip(("prev", "next"), neighbors, strict=True):
        if neighbor is not None and language(neighbor) != language(page):
            context[name] = None  # the menu leads there, not the next page of a course
    if other in app.env.found_docs:
        context["other_language"] = {"page": other, "name": "中文" if other.startswith(CHINESE) else "English"}
    if (Path(app.srcdir) / f"{page}.ipynb").is_file():
        context["notebook"] = f"{page.rpartition('/')[2]}.ipynb"


def plain_docstring(_app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Escapes what is a sign of reStructuredText and none of Markdown: `|`, `*`, `_` at the end of a word.

    A letter after code, as in the plural of a name, must be parted from it by an escaped space.
    """
    for number, line in enumerate(lines):
        parts = re.split(r"(``?[^`]+``?)", line)
        parts[::2] = [re.sub(r"([|*\\]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
        parts[2::2] = [re.sub(r"^(?=\w)", r"\\ ", part) for part in parts[2::2]]
        lines[number] = "".join(parts)


def add_files(app: Sphinx, error: Exception | None) -> None:
    """Adds the script that draws the plots and the notebooks to the built site."""
    if error is None:
        write_vega(Path(app.outdir) / "_static")
        for notebook in Path(app.srcdir).rglob("*.ipynb"):
            shutil.copyfile(notebook, Path(app.outdir) / notebook.relative_to(app.srcdir))


def write_formula(translator: Any, node: nodes.math | nodes.math_block) -> None:
    """Writes a formula in LaTeX as MathML."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    translator.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def mark_chinese(app: Sphinx, doctree: nodes.document) -> None:
    """Marks emphasis on Chinese pages."""
    if language(app.env.docname) != "en":
        mark_emphasis(doctree)


def mark_cells(_app: Sphinx, doctree: nodes.document) -> None:
    """Marks cells of tables as short or long, so that the style sheet can keep the first whole and the others wide."""
    for entry in doctree.findall(nodes.entry):
        text = entry.astext()
        wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
        columns = len(text) + wide
        if columns <= SHORT and "\n" not in text:
            entry["classes"] += ["short", "han"] if wide else ["short"]
        elif columns >= LONG:
            entry["classes"].append("long")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects the functions of this file to Sphinx."""
    app.add_search_language(SearchMixed)
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
    app.connect("html-page-context", add_links, priority=900)  # after the theme has made its menus
    app.connect("doctree-read", mark_chinese)
    app.connect("doctree-read", mark_cells)
    app.connect("build-finished", add_files)
    app.connect("autodoc-process-docstring", plain_docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
