"""Tests of `lmzoo.gallery.equations`: MathML of the notation of the cards, and that no card loses a word."""

from __future__ import annotations

import re
from html import unescape
from xml.etree import ElementTree

import pytest

from lmzoo import registry
from lmzoo.gallery.equations import GREEK, equations, is_equation, mathml
from tests.cases import each_case

FAMILIES = list(registry.families())


def shape(text: str, settings: tuple[str, ...] = ()) -> str:
    """The MathML in short: the tags of scripts and roots, texts of the rest."""

    def short(element: ElementTree.Element) -> str:
        inner = "".join(map(short, element))
        if element.tag in ("math", "mrow"):
            return inner
        if element.tag == "mspace":
            return " "
        text = element.text or ""
        if element.tag == "mi":
            return f"/{text}/"  # italic
        return f"{element.tag}({','.join(map(short, element))})" if len(element) else text

    return short(ElementTree.fromstring(mathml(text, settings)))


def test_mathml_has_subscripts_and_superscripts() -> None:
    assert shape("S_t") == "msub(/S/,/t/)"
    assert shape("S_{t-1}") == "msub(/S/,/t/−1)"
    assert shape("k_t^T") == "msubsup(/k/,/t/,/T/)"
    assert shape("2^(-8 h / n)") == "msup(2,−8 /h///n/)"
    assert shape("x²") == "msup(/x/,2)"
    assert shape("a 2i") == "/a/ 2/i/"
    assert shape("q1") == "msub(/q/,1)"
    assert shape("q1_t") == shape("q1_{t}") == "msub(/q/,1,/t/)"
    assert shape("W_gate,e h") == "msub(/W/,gate,/e/) /h/"
    assert shape("softmax_s(q)_t") == "msub(softmax,/s/)msub((/q/),/t/)"
    assert shape("x_{i + K/2}") == "msub(/x/,/i/+/K//2)"


def test_mathml_knows_greek_signs_roots_and_sums() -> None:
    assert shape("beta_t <= lambda") == "msub(/β/,/t/)≤/λ/"
    assert shape("q . k / sqrt(K)") == "/q/·/k//msqrt(/K/)"
    assert shape("sum over s <= t of softmax(s) v_s") == "munder(∑,/s/≤/t/) softmax(/s/) msub(/v/,/s/)"
    assert shape("sum over e in C of p_e") == "munder(∑,/e/ ∈ /C/) msub(/p/,/e/)"
    assert shape("sum_m p_tm") == "msub(∑,/m/) msub(/p/,tm)"
    assert shape("the largest sum of p") == "the largest sum of /p/"


def test_mathml_keeps_settings_and_words_upright() -> None:
    assert shape("d_model", ("d_model",)) == "d_model"
    assert 'class="code">d_model<' in mathml("sqrt(d_model)", ("d_model",))
    assert shape("d_model") == "msub(/d/,model)", "no setting of this model"
    assert shape("sigmoid(x)", ("sigmoid",)) == "sigmoid(/x/)"
    assert "code" not in mathml("sigmoid(x)", ("sigmoid",)), "a function that has the name of a setting"
    assert shape("out = W_out y") == "out=msub(/W/,out) /y/"


def test_mathml_escapes_what_is_no_markup() -> None:
    text = mathml("a < b & `</math><script>`")
    assert "<script" not in text
    assert ElementTree.fromstring(text) is not None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("S_t = a S_{t-1}", True),
        ("log a_t = -8 r_t", True),
        ("score(t, s) += log f", True),
        ("q, k, v = W x", True),
        ("z, x, B, C, dt = W_in x", True),
        ("for each of n heads of K = d / n features:", False),
        ("or W_q h, with q_rank = none", False),
        ("kv_rank features; c = RMS(c)", False),
        ("causal, per channel", False),
        ("causal, n = 1, 2", False),
    ],
)
def test_is_equation_is_false_for_prose(text: str, found: bool) -> None:
    assert is_equation(text) is found


def test_equations_part_a_line_into_an_equation_and_notes() -> None:
    block = "    x   = W y       d_ff wide, not <b>\n\n    for each of the n_layers blocks:\n"
    html = equations(block, ("d_ff", "n_layers"))
    assert html.count('<div class="line">') == html.count('<div class="gap">') == html.count('<div class="prose"') == 1
    assert '<span class="note"><code>d_ff</code> wide, not &lt;b&gt;</span>' in html
    assert "for each of the <code>n_layers</code> blocks:" in html
    assert html.count("padding-left: 2.4em") == 2


def test_equations_read_groups_in_subscripts_of_prose() -> None:
    html = equations("    R_t turns each pair (x_i, x_{i + K/2}) by t\n")
    assert mathml("x_{i + K/2}") in html
    assert mathml("R_t") in html


@each_case("family", FAMILIES)
def test_equations_lose_no_letter_of_a_card(family: str) -> None:
    for block in re.findall(r"(?:^    .*\n|^\n)+", registry.families()[family].card, re.MULTILINE):
        html = equations(block, ("d_model",))
        ElementTree.fromstring(html.replace("&nbsp;", " "))  # well-formed
        assert letters(unescape(re.sub(r"<[^>]+>", "", html))) == letters(block)


def letters(text: str) -> str:
    """The letters and digits, with names for Greek letters, without the words that become a sign."""
    names = {sign: name for name, sign in GREEK.items()} | {"²": "2", "³": "3"}
    text = "".join(names.get(char, char) for char in text)
    return re.sub(r"sqrt|sum|over|of|in|\W|_", "", text.replace("∑", "sum"))
