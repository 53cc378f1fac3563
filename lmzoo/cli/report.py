"""`lmzoo report`: the report of a comparison or of probes made from its results."""

from __future__ import annotations

import os
from pathlib import Path

import click

from lmzoo.cli.group import cli
from lmzoo.errors import InputError
from lmzoo.terminal import shown


@cli.command(short_help="Write the report of a comparison or of probes anew.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--figures", is_flag=True, help="Also write each figure as SVG into DIR/figures (needs vl-convert).")
def report(folder: Path, figures: bool) -> None:
    """Write the report of a comparison anew from DIR/results.json, or a page of probes from DIR/probes.json.

    Of a comparison, writes report.html, table.md and papers.bib, which holds the papers of the compared models in
    BibTeX; of one with --sizes, those of each size, and scaling.html and scaling.md. Of probes, writes probes.html: a
    heat map of the accuracies.

    \b
    lmzoo report runs/compare
    lmzoo report runs/compare --figures
    lmzoo report runs/probe
    """
    from lmzoo.compare import series
    from lmzoo.compare.records import load_results
    from lmzoo.compare.results import FILE
    from lmzoo.compare.scaling import LEAST_SIZES
    from lmzoo.compare.svg import write_figures
    from lmzoo.compare.write import write_report
    from lmzoo.probing import report as probe_report
    from lmzoo.probing import results as probe_results

    if not os.path.lexists(folder / FILE) and os.path.lexists(folder / probe_results.FILE):
        if figures:
            raise InputError(f"{folder}: --figures needs {FILE}: a page of probes has no figures")
        click.echo(shown(str(probe_report.write_report(probe_results.read_results(folder), folder))))
        return
    of_sizes = not os.path.lexists(folder / FILE) and bool(series.finished_folders(folder))
    parts = series.finished_folders(folder) if of_sizes else [folder]
    read = {part: load_results(part) for part in parts}  # all are read before anything is written
    sizes = {series.size_of(part): results for part, results in read.items()} if of_sizes else {}
    scaling = series.fit(sizes) if len(sizes) >= LEAST_SIZES else None
    for part, results in read.items():
        written = write_figures(results, part) if figures else []
        for path in [*write_report(results, part), *written]:
            click.echo(shown(str(path)))
    for path in series.write_report(scaling, folder) if scaling else ():
        click.echo(shown(str(path)))
