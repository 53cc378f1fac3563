"""`lmzoo report`: the report of a comparison made anew from its results."""

from __future__ import annotations

from pathlib import Path

import click

from lmzoo.cli.group import cli


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--figures", is_flag=True, help="Also write each figure as SVG into DIR/figures (needs vl-convert).")
def report(folder: Path, figures: bool) -> None:
    """Write the report of a comparison anew from DIR/results.json.

    Writes report.html, table.md and papers.bib, which holds the papers of the compared models in BibTeX.

    \b
    lmzoo report runs/compare
    lmzoo report runs/compare --figures
    """
    from lmzoo.compare.records import load_results
    from lmzoo.compare.svg import write_figures
    from lmzoo.compare.write import write_report

    results = load_results(folder)
    written = write_figures(results, folder) if figures else []
    for path in [*write_report(results, folder), *written]:
        click.echo(path)
