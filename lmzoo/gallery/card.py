"""Converts the card of a family, which is Markdown, to sections of HTML; the equations become MathML."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from html import escape
from typing import TYPE_CHECKING

from lmzoo.gallery.equations import equations

if TYPE_CHECKING:
    from markdown_it.token import Token

IDEA, EQUATIONS = "The idea", "The equations"
_SECTION = re.compile(r"^\*\*([^*\n]+?)(\.?)\*\*[ ]?", re.MULTILINE)
_ARXIV = re.compile(r"arXiv\s(\d{4}\.\d{4,5})")


def sections(card: str, settings: Collection[str]) -> dict[str, str]:
    """Returns the sections of a card by title, as HTML in which all text is escaped.

    A section begins with its title in bold. A text without such titles is one section, the idea.
    """
    body = re.sub(r"\A# .*\n", "", card).strip()
    marks = list(_SECTION.finditer(body))
    if not marks or marks[0].start() > 0:
        return {IDEA: html(body, settings)}
    ends = [mark.start() for mark in marks[1:]] + [len(body)]
    found = {}
    for mark, end in zip(marks, ends, strict=True):
        # A title that is part of a sentence, as in "**Initialization**, as in the paper", stays in it.
        text = body[mark.end() : end] if mark[2] else body[mark.start() : end]
        found[mark[1]] = html(text, settings, math=mark[1] == EQUATIONS)
    return found


def html(markdown: str, settings: Collection[str] = (), *, math: bool = False) -> str:
    """Returns Markdown as HTML, without the HTML in it; with `math`, indented blocks are equations."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    if math:

        def rule(_renderer: object, tokens: Sequence[Token], index: int, *_others: object) -> str:
            return equations(tokens[index].content, settings)

        parser.add_render_rule("code_block", rule)
    text = parser.render(markdown).replace("<table>", '<table class="words">')
    return _ARXIV.sub(r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>', text)


def preformatted(text: str) -> str:
    """Returns a text as an element `pre`."""
    return f"<pre>{escape(text)}</pre>"
