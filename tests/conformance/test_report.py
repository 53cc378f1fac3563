"""Results and reports: JSON, and the failures that exclude a model from a ranking."""

from __future__ import annotations

import json

import pytest

from lmzoo.conformance import RANKING_GROUPS, Report, Result
from lmzoo.conformance.report import described, raised_at


def report(group: str, *, passed: bool = False) -> Report:
    return Report("x", {"n_layers": 2}, (Result("a check", group, passed, "what it saw", 0.5),), seconds=0.5)


def test_described_has_the_first_line_of_a_message() -> None:
    assert described(ValueError("one\ntwo")) == "ValueError: one"
    assert described(ValueError()) == "ValueError: "


def test_raised_at_names_the_last_line_outside_installed_packages() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    assert raised_at(caught.value).startswith(" at decoder.py:")  # of Python's own library
    assert raised_at(ValueError("never raised")) == ""


def test_report_is_the_same_after_json() -> None:
    before = report("past", passed=True)
    text = json.loads(before.to_json())
    assert Report.from_dict(text) == before
    assert text["schema"] == 1
    assert text["passed"] is True
    assert text["failures"] == []
    assert Report("x", {}, (), seconds=0.12345).to_dict()["seconds"] == 0.123


def test_report_rankable_depends_on_contract_causality_decoding_and_loss() -> None:
    assert RANKING_GROUPS == ("contract", "causality", "decoding", "loss")
    for group in RANKING_GROUPS:
        assert not report(group).rankable
        assert report(group, passed=True).rankable
    assert report("counts").rankable
    assert not report("counts").passed


def test_report_str_names_each_check_and_the_verdict() -> None:
    assert str(report("counts")) == "FAIL  a check: what it saw\nx: failed: a check (1 checks, 0.5 s)"
    assert str(report("counts", passed=True)).endswith("x: all checks passed (1 checks, 0.5 s)")


def test_report_repr_is_one_line_and_a_table_in_a_notebook() -> None:
    failed = Report(
        "x", {}, (Result("a check", "loss", False, "saw <b>", 0.5), Result("b", "loss", True, "", 0.0)), True, 0.5
    )
    assert repr(failed) == "<checks of x: failed: a check (2 checks, 0.5 s)>"
    table = failed._repr_html_()
    assert table.count("<tr>") == 2
    assert "saw &lt;b&gt;" in table


def test_report_names_causes_first_and_gives_no_advice_for_what_may_follow() -> None:
    saw = "logits are off; look at the cache"
    first, other = (Result(name, "decoding", False, saw, 0.5) for name in ("decoding", "flops"))
    second = Result("max_len", "decoding", False, saw, 0.5, follows="decoding")
    found = Report("x", {}, (first, second, other))
    assert found.causes == ["decoding", "flops"]
    assert found.failures == ["decoding", "max_len", "flops"]
    assert "FAIL  max_len: may follow from decoding: logits are off\n" in str(found)
    assert str(found).endswith("x: failed: decoding, flops; may follow: max_len (3 checks, 0.0 s)")
    assert Report.from_dict(found.to_dict()) == found
