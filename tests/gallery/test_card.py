"""Tests of `lmzoo.gallery.card`: sections of a card as HTML."""

from __future__ import annotations

from lmzoo import registry
from lmzoo.gallery.card import EQUATIONS, IDEA, html, preformatted, sections
from tests.cases import each_case

CARD = """# Name

**The idea.** One *word*, arXiv
2312.00752.

**The equations.** With d_model:

    y = W_o x       a note

| a | b |
|---|---|
| 1 | <b> |

**Initialization**, as in the paper.
"""


def test_sections_are_parted_at_their_titles() -> None:
    found = sections(CARD, {"d_model"})
    assert list(found) == [IDEA, EQUATIONS, "Initialization"]
    assert '<p>One <em>word</em>, <a href="https://arxiv.org/abs/2312.00752">arXiv 2312.00752</a>.</p>' in found[IDEA]
    assert "<math>" in found[EQUATIONS]
    assert '<table class="words">' in found[EQUATIONS]
    assert found["Initialization"] == "<p><strong>Initialization</strong>, as in the paper.</p>\n"


def test_sections_of_a_text_without_titles_is_one() -> None:
    assert sections("The mean of all embeddings.\n\n    y = x\n", ()) == {
        IDEA: "<p>The mean of all embeddings.</p>\n<pre><code>y = x\n</code></pre>\n"
    }


@each_case("family", list(registry.families()))
def test_sections_of_every_card_begin_with_the_idea_and_the_equations(family: str) -> None:
    card = registry.families()[family].card
    if card.startswith("# "):  # a family of a test has a docstring instead
        found = list(sections(card, ()))
        assert found[0] == IDEA
        assert EQUATIONS in found


def test_html_escapes_markup_and_dangerous_links() -> None:
    text = html("<script>alert(1)</script> [x](javascript:alert(1)) <img src=x onerror=y>")
    assert "<script" not in text
    assert "<img" not in text
    assert "href" not in text


def test_preformatted_escapes() -> None:
    assert preformatted("<b>&") == "<pre>&lt;b&gt;&amp;</pre>"
