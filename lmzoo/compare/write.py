"""Writes the files of a comparison that are for people: the table, the report and the papers."""

from __future__ import annotations

from pathlib import Path

from lmzoo.compare import papers
from lmzoo.compare.activations import read_activations
from lmzoo.compare.report import html
from lmzoo.compare.results import Results
from lmzoo.compare.table import markdown
from lmzoo.storage import atomic


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write report.html, table.md and papers.bib (empty if no model has a paper) to `folder`; returns their paths.

    The report shows the activations of the runs in `folder`, if they are still there.
    """
    contents = {
        "report.html": html(results, read_activations(results, folder)),
        "table.md": markdown(results),
        papers.FILE: papers.bibtex(results),
    }
    for name, content in contents.items():
        atomic.write_file(folder / name, content)
    return [folder / name for name in contents]
