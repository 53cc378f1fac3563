"""Tests which files a report consists of."""

from __future__ import annotations

from pathlib import Path

from lmzoo.compare.papers import bibtex
from lmzoo.compare.report import html
from lmzoo.compare.table import markdown
from lmzoo.compare.write import write_report
from tests.compare.example import everything


def test_write_report_writes_report_table_and_papers(tmp_path: Path) -> None:
    results = everything()
    paths = write_report(results, tmp_path)
    assert {path.name: path.read_text(encoding="utf-8") for path in paths} == {
        "report.html": html(results),
        "table.md": markdown(results),
        "papers.bib": bibtex(results),
    }
    assert "gu2023mamba" in bibtex(results)
