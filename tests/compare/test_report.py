"""Tests the HTML report: complete, self-contained, escaped."""

from __future__ import annotations

import dataclasses
import json
import re
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from lmzoo.compare import protocol
from lmzoo.compare.conclusions import conclusions
from lmzoo.compare.report import html
from lmzoo.errors import InputError
from tests.compare.example import HOSTILE, everything, example, model, several_seeds, two_searches

VOID = {"meta", "br", "img", "input"}


class Reader(HTMLParser):
    """Collects the tags and the text, and asserts that every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_html_escapes_all_outside_text() -> None:
    page = html(everything())
    reader = read(page)
    assert reader.tags.count("script") == 3  # the data of the figures, Vega, and report.js
    assert "img" not in reader.tags
    assert "b" in reader.tags  # from the report itself
    assert "The <sea>" in reader.text
    assert "step 3: the loss is nan | <b>" in reader.text
    assert "a <processor>" in reader.text
    assert "2.8 % of the <validation> split is copied." in reader.text
    assert "</pre><script>alert('x')</script> & more" in read(html(example())).text
    assert HOSTILE in reader.text


def test_html_escapes_the_names_of_figures() -> None:
    results = two_searches()
    (later,) = results.tuning["then"]
    hostile = dataclasses.replace(results, tuning={**results.tuning, "then": [{**later, "setting": HOSTILE}]})
    assert HOSTILE not in html(hostile)


def test_html_holds_the_figures_as_data() -> None:
    figures = figure_data(html(everything()))
    assert list(figures) == ["ranking", "loss", "sensitivity", "positions", "classes", "cost"]
    assert HOSTILE in {row["model"] for row in figures["loss"]["spec"]["data"]["values"]}
    assert figures["loss"]["axes"][1] == {"label": "FLOPs", "field": "flops", "title": "FLOPs of training", "log": True}


def figure_data(page: str) -> dict[str, Any]:
    return json.loads(page.partition('<script type="application/json" id="figures">')[2].partition("</script>")[0])


def test_html_is_self_contained_and_small() -> None:
    page = html(example())
    own = page.partition("<script>")[0]  # without Vega, which names the namespaces of SVG
    assert not re.search(r"(?i)\b(src|href|url|@import)\s*[=(]\s*[\"']?(?!#)", own)
    assert "http:" not in own.replace("http-equiv", "")
    assert "https:" not in own
    assert "default-src 'none'" in own
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    assert len(html(everything()).encode()) < 1.5e6


def test_html_without_figures_has_no_script() -> None:
    failed = dataclasses.replace(example(), models=[example().models[4]])
    assert "script" not in read(html(failed)).tags


def test_html_has_controls_for_axes_scales_and_models() -> None:
    form = html(everything()).partition('data-figure="loss"')[2].partition("</form>")[0]
    assert re.findall(r'name="axis" value="(\d)"( checked)?>(\w+)<', form) == [
        ("0", " checked", "tokens"),
        ("1", "", "FLOPs"),
        ("2", "", "time"),
    ]
    assert [unescape(name) for name in re.findall(r'name="model" value="([^"]*)" checked>', form)] == [
        "gpt2.tiny",
        "mamba.tiny",
        HOSTILE,
        "wild",
    ]
    assert re.findall(r'name="log-(\w)"( checked)?', form) == [("x", ""), ("y", "")]
    cost = html(everything()).partition('data-figure="cost"')[2].partition("</form>")[0]
    assert re.findall(r'name="log-(\w)"( checked)?', cost) == [("x", " checked"), ("y", "")]


def test_html_states_the_protocol_once_and_the_yardsticks() -> None:
    page = read(html(everything())).text
    assert page.count(protocol.sentence(everything())) == 1
    assert page.index("uniform") < page.index(protocol.sentence(everything()))  # in the table of the ranking
    assert "uniform4.1746.022" in page
    assert "the entropy rate of the source" in page
    assert "the entropy rate of the source" not in read(html(example())).text


def test_html_states_checks_settings_and_conclusions() -> None:
    text = read(html(everything())).text
    assert "failed: causality; no rank" in text
    assert "passed all 2" in text
    assert "[train]\nlearning_rate = 0.01" in text
    assert all(paragraph in text for paragraph in conclusions(everything()))
    assert "Checks" not in read(html(example())).text


def test_html_says_how_often_the_speed_was_measured() -> None:
    assert "4 tokens within the context, median of at most 5 repetitions." in html(example())


def test_html_folds_a_long_table_of_pairs() -> None:
    many = several_seeds({f"m{i}": [1 + i / 100, 1.001 + i / 90] for i in range(7)})
    assert "<summary>All 21 pairs</summary>" in html(many)
    assert "<summary>All" not in html(everything())


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


def test_html_marks_every_figure_with_its_heading_for_narrow_screens() -> None:
    page = html(example())
    for heading in ("val loss (nats)", "train tok/s", "state at full context", "evaluation time"):
        assert f'data-label="{heading}"' in page
    assert "content: attr(data-label)" in page


def test_html_keeps_colors_in_print() -> None:
    page = html(example())
    assert "print-color-adjust: exact" in page
    assert "@media screen and (prefers-color-scheme: dark)" in page, "paper is white"


def test_report_refuses_a_number_that_no_figure_can_show() -> None:
    results = dataclasses.replace(example(), models=[model("a", 1.5, curve=[[0, 4.0], [10, float("inf")]])])
    with pytest.raises(InputError, match="the results hold a number that no figure can show"):
        html(results)
