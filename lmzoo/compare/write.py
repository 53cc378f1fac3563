"""Writes the files of a comparison that are for people: the table, the report and the papers."""

from __future__ import annotations

from pathlib import Path

from lmzoo.compare import papers
from lmzoo.compare.report import html
from lmzoo.compare.results import Results
from lmzoo.compare.table import markdown
from lmzoo.storage import atomic


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write report.html, table.md and papers.bib (empty if no model has a paper) to `folder`; returns their paths."""
    contents = {"report.html": html(results), "table.md": markdown(results), papers.FILE: papers.bibtex(results)}
    for name, content in contents.items():
        atomic.write_file(folder / name, content)
    return [folder / name for name in contents]
