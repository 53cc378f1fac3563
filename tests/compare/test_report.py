"""Tests the HTML report: complete, self-contained, escaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from lmzoo.compare.report import decades, html, ranking_table
from tests.compare.example import example

VOID = {"meta", "line", "circle", "rect", "br"}


class Reader(HTMLParser):
    """Collects the tags and the text, and asserts that every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_html_escapes_all_outside_text() -> None:
    page = html(example())
    reader = read(page)
    assert "script" not in reader.tags
    assert "b" in reader.tags  # from the bars of the report itself
    assert "</pre><script>alert('x')</script> & more" in reader.text
    assert "The <sea>" in reader.text
    assert "step 3: the loss is nan | <b>" in reader.text
    assert "a <processor>" in reader.text
    assert "2.8 % of the <validation> split is copied." in reader.text


def test_html_is_self_contained() -> None:
    page = html(example())
    assert not re.search(r"(?i)\b(src|href|url|@import)\s*[=(]\s*[\"']?(?!#)", page)
    assert "http" not in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_html_has_every_model_figure_and_fact() -> None:
    text = read(html(example())).text
    for fact in (
        "best",
        "close",
        "slow",
        "wild",
        "leaky",
        "3-gram",
        "1.500",
        "2.164",
        "16.4 kB",
        "ab" * 32,
        "torch 2.13",
    ):
        assert fact in text
    assert "lmzoo compare best --data 'a & b.txt'" in text
    assert "0.100" not in text  # the loss of the model that failed a check


def test_html_draws_every_curve_once_for_each_width() -> None:
    page = html(example())
    assert page.count("<svg ") == 2
    assert page.count("clip-path=") == 2 * 4  # best, close, slow, wild; not leaky, which may see future tokens


def test_html_marks_every_figure_with_its_heading_for_narrow_screens() -> None:
    page = html(example())
    for heading in ("val loss (nats)", "train tok/s", "state at full context", "evaluation time"):
        assert f'data-label="{heading}"' in page
    assert "content: attr(data-label)" in page


def test_html_keeps_colors_in_print() -> None:
    page = html(example())
    assert "print-color-adjust: exact" in page
    assert "@media screen and (prefers-color-scheme: dark)" in page, "paper is white"


def test_html_draws_speeds_on_a_logarithmic_axis() -> None:
    """48,000 and 1,234.5 tokens/s on an axis from 1,000 to 100,000: at 84.1 % and 4.6 %, not at 100 % and 3 %."""
    places = re.findall(r'<i class="fill\d" style="left:([\d.]+)%">', html(example()))
    assert places[:3] == ["84.1", "84.1", "4.6"]


def test_decades_enclose_the_values() -> None:
    assert decades([1234.5, 48_000]) == (3, 5)
    assert decades([100, 100]) == (2, 3)
    assert decades([0.0, 20]) == (1, 2)
    assert decades([]) == (0, 1)


def test_ranking_table_is_the_notebook_form_of_results() -> None:
    results = example()
    shown = results._repr_html_()
    assert shown == ranking_table(results)
    assert "swatch" not in shown
    read(shown)
    assert repr(results) == "<comparison of 5 models on sea.txt, best best at 1.500 nats per token>"
