"""Tests the page: complete, self-contained, escaped, the same scale for all models."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

import pytest
import torch

from lmzoo.conformance import subject
from lmzoo.data.tokenizers import CharTokenizer
from lmzoo.inspect.inspection import Inspection, Token, examine
from lmzoo.inspect.page import full_color, html, write_page
from lmzoo.inspect.recording import Recording
from tests.compare.test_report import read
from tests.inspect.texts import CHARS, HOSTILE, inspected


def data_of(page: str) -> list[dict[str, Any]]:
    return json.loads(page.partition('<script type="application/json" id="inspections">')[2].partition("</script>")[0])


def test_html_escapes_all_outside_text() -> None:
    page = html([inspected("gpt2", HOSTILE, name=HOSTILE)])
    reader = read(page)
    assert reader.tags.count("script") == 2  # the data, and page.js
    assert reader.tags.count("b") == 0
    assert reader.text.count("</script>") >= 3  # title, heading, text
    marked = [{" ": "␣", "\n": "↵"}.get(char, char) for char in HOSTILE]
    assert [token["text"] for token in data_of(page)[0]["tokens"]][: len(HOSTILE)] == marked
    texts = re.findall(r'class="token"[^>]*>(.*?)</span>', page, re.DOTALL)
    assert texts[:-1] == [escape({"\n": "↵\n"}.get(char, char)) for char in HOSTILE]


def test_html_escapes_a_token_that_would_end_the_script() -> None:
    token = Token(1, "</script><b>", 1.0, 1, [("</script><b>", 1.0)])
    found = Inspection("m", [token, token, Token(None, "", None, None, [])], 1, None, "<b>", Recording({}))
    page = html([found])
    assert read(page).tags.count("b") == 0
    assert data_of(page)[0]["tokens"][0]["text"] == "</script><b>"


def test_html_shows_the_text_of_each_model_side_by_side() -> None:
    models = [inspected("gpt2", "abc\nabc", name="one"), inspected("mamba", "abc\nabc", name="two")]
    page = html(models)
    assert 'class="models of2"' in page
    assert "<h1>How one and two read a text</h1>" in page
    assert page.count('class="token"') == 2 * 8
    assert re.findall(r'data-i="3"[^>]*>([^<]*)<', page) == ["↵\n", "↵\n"]
    assert re.findall(r'tabindex="0" data-i="(\d)"', page) == ["0", "0"], "one stop of the tab key in each text"
    assert html([*models, models[0]]).count("<section") == 3
    assert "<h1>How one reads a text</h1>" in html(models[:1])


def with_bits(*bits: float) -> Inspection:
    tokens = [Token(0, "a", None, None, []), *(Token(0, "a", b * 0.6931471805599453, 1, []) for b in bits)]
    return Inspection("m", [*tokens, Token(None, "", None, None, [])], len(bits), torch.eye(1), None, Recording({}))


def test_full_color_is_a_large_surprise_of_all_models() -> None:
    bits = [i / 10 for i in range(100)]
    assert full_color([with_bits(*bits)]) == pytest.approx(9.4)
    assert full_color([with_bits(*bits[:50]), with_bits(*bits[50:])]) == pytest.approx(9.4)
    assert full_color([with_bits(0.1)]) == 1.0
    assert full_color([with_bits(float("inf"))]) == 1.0
    assert full_color([with_bits()]) == 1.0


def test_html_colors_by_surprise() -> None:
    page = html([with_bits(0.0, 2.0, 4.0, 4.0, 4.0)])
    assert re.findall(r"--a:(\d+)%", page) == ["0", "0", "50", "100", "100", "100", "0"]


def test_html_is_self_contained_and_small() -> None:
    page = html([inspected("mixtral", "abc" * 10)])
    own = re.sub(r'src="data:image/png;base64,[\w+/=]*"', "", page)
    assert not re.search(r"(?i)\b(src|href|url|@import)\s*[=(]\s*[\"']?(?!#)", own)
    assert "http:" not in own.replace("http-equiv", "")
    assert "https:" not in own
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"]
    assert len(page.encode()) < 200_000


def test_html_says_why_there_is_no_influence_and_what_was_cut() -> None:
    assert "ngram looks up no embedding of the tokens" in read(html([inspected("ngram", "abc")])).text
    cut = html([inspected("gpt2", "a" * 40)])
    assert "<b>The text has 40 tokens: only the first 32 are inspected.</b>" in cut


def test_html_of_a_broken_model_has_no_number_that_json_lacks() -> None:
    tokenizer = CharTokenizer(CHARS)
    model = subject("mixtral").model(vocab_size=tokenizer.vocab_size)
    with torch.no_grad():
        for parameter in model.blocks[1].parameters():
            parameter.fill_(torch.nan)
    page = html([examine(model, tokenizer, "abcab")])
    assert data_of(page)[0]["tokens"][2]["nats"] is None
    assert "nan nats per token" in page
    assert "nan" not in "".join(re.findall(r'data-full="[^"]*"|--a:[^"]*"', page))


def test_html_carries_the_numbers_of_each_token() -> None:
    found = inspected("mamba", "abcd")
    (data,) = data_of(html([found]))
    assert len(data["tokens"]) == 5
    assert data["tokens"][2]["nats"] == pytest.approx(found.tokens[2].nats, rel=1e-3)
    assert data["tokens"][2]["rank"] == found.tokens[2].rank
    assert len(data["tokens"][4]["top"]) == 5
    assert all(len(layer["values"]) == 4 for layer in data["layers"])


def test_write_page_writes_the_file(tmp_path: Path) -> None:
    write_page([inspected("bigram", "abc")], tmp_path / "x.html")
    assert (tmp_path / "x.html").read_text(encoding="utf-8").startswith("<!doctype html>")
