"""Tests numbers for people: counts, bytes, durations and losses."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmzoo import humanize


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (812, "812"), (9.87, "9.87"), (9.999, "10.0"), (0.5, "0.50"), (999.7, "1.00 k"), (1234.5, "1.23 k"),
     (99_960, "100 k"), (999_900, "1.00 M"), (10_650_000, "10.7 M"), (1.5e9, "1.50 G"), (None, "–")],
)  # fmt: skip
def test_count_has_three_digits_and_a_unit(value: float | None, text: str) -> None:
    assert humanize.count(value) == text


def test_number_has_a_noun_in_the_singular_or_the_plural() -> None:
    assert [humanize.number(value, "run") for value in (0, 1, 2, 1200)] == ["0 runs", "1 run", "2 runs", "1,200 runs"]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.1537, "15"), (0.028, "2.8"), (0.0042, "0.42"), (1e-6, "below 0.01"), (0.0, "0"), (1.0, "100")],
)
def test_percent_has_two_digits(share: float, text: str) -> None:
    assert humanize.percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.23, "4.2 s"), (9.97, "10 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (None, "–")],
)
def test_duration_has_one_or_two_units(seconds: float | None, text: str) -> None:
    assert humanize.duration(seconds) == text


def test_size_has_three_digits_and_a_unit() -> None:
    assert [humanize.size(value) for value in (0, 845, 22_400)] == ["0 B", "845 B", "22.4 kB"]


def test_loss_has_three_decimals() -> None:
    assert [humanize.loss(value) for value in (1.23456, 0.0, None)] == ["1.235", "0.000", "–"]


def test_plain_escapes_what_a_terminal_obeys_or_hides() -> None:
    assert humanize.plain("größer 中文 ok") == "größer 中文 ok"
    assert humanize.plain("a\x1b[31m\x7f\u202eb\udcff\u2028\n") == r"a\x1b[31m\x7f\u202eb\udcff\u2028\n"
    assert humanize.plain("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"


def test_line_cuts_long_words_and_long_texts() -> None:
    assert humanize.line("short words") == "short words"
    assert humanize.line("a=" + "1" * 5000 + " must be small") == "a=" + "1" * 97 + "…" + "1" * 99 + " must be small"
    assert len(humanize.line("ab " * 5000)) == humanize.LINE_CHARACTERS


@given(st.text())
def test_line_of_any_text_is_one_line_that_can_be_written(text: str) -> None:
    shown = humanize.line(text)
    assert shown.splitlines() in ([], [shown])
    assert all(unicodedata.category(char) not in ("Cc", "Cf", "Cs") for char in shown)
    assert len(shown) <= humanize.LINE_CHARACTERS
    shown.encode()


@given(st.text(alphabet=st.characters(max_codepoint=0xE007F)))
def test_plain_json_has_the_same_value_and_no_character_that_a_terminal_obeys(text: str) -> None:
    shown = humanize.plain_json(json.dumps({"text": text}, ensure_ascii=False, indent=1))
    assert json.loads(shown) == {"text": text}
    assert humanize.plain(shown, keep="\n") == shown


def test_finite_leaves_what_json_can_hold() -> None:
    value = {"a": [1, float("nan"), "x"], "b": (float("-inf"), None, True), "c": {"d": 0.5}}
    assert humanize.finite(value) == {"a": [1, None, "x"], "b": [None, None, True], "c": {"d": 0.5}}
