"""Tests of `lmzoo.gallery.checked`: which checks a family passed, as its page and a terminal show it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lmzoo.conformance import check_names
from lmzoo.entries import Family
from lmzoo.gallery.checked import checks_html, in_a_sentence, outcomes

RESULTS = {
    "checks": {
        "passed": {"causality": True, "decoding": False},
        "versions": {"lmzoo": "0.1.0", "torch": "2.13.0"},
        "commit": "0123456789abcdef",
        "date": "2026-11-27",
    }
}


def test_outcomes_takes_what_can_be_read() -> None:
    assert outcomes(RESULTS) == {"causality": True, "decoding": False}
    odd: list[dict[str, Any]] = [
        {},
        {"checks": 3},
        {"checks": {"passed": [1]}},
        {"checks": {"passed": {"loss": "yes"}}},
    ]
    assert all(outcomes(results) == {} for results in odd)


def test_in_a_sentence_names_what_failed() -> None:
    expected = "passed 1 of 2 checks on 2026-11-27, lmzoo 0.1.0 at 0123456, torch 2.13.0, failed: decoding"
    assert in_a_sentence(RESULTS) == expected
    assert in_a_sentence({}) == ""


def test_checks_html_marks_each_check(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    text = checks_html(Family("gpt2", tmp_path))
    assert "✓ <code>causality</code>" in text
    assert "✗ <code>decoding</code>" in text
    assert text.count("✓") == text.count("✗") == 1, "a check without an outcome has no mark"
    names = set(re.findall(r">(\w+)</code>", text))
    assert names == {name for name in check_names() if not name.startswith("own_")}
    groups = re.findall(r"<th>(\w+)</th>", text)
    assert len(groups) == len(set(groups)), "a group is one row"
