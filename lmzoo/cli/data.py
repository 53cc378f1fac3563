"""Commands about texts: data show."""

from __future__ import annotations

from dataclasses import asdict

import click

from lmzoo import humanize
from lmzoo.cli.group import cli, print_json


@cli.group()
def data() -> None:
    """Describe the texts that models are trained on.

    \b
    lmzoo data show pydocs
    """


@data.command("show", short_help="Show the size of a text, its splits, its hash and its copies.")
@click.argument("name", metavar="NAME|FILE|DIR|GLOB")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show_data(name: str, as_json: bool) -> None:
    """Show the size of a text, its splits, its hash, and how much of the validation split is copied text.

    Files of the validation split that nearly equal one of the training split are left out of it, and counted here.

    Of a synthetic source (markov2, for example) also the entropy rate: no model has a lower expected loss.

    \b
    lmzoo data show pydocs
    lmzoo data show novel.txt --json
    """
    from lmzoo.data.corpora import load_corpus
    from lmzoo.data.overlap import measure_overlap
    from lmzoo.data.synthetic import entropy_rate

    corpus = load_corpus(name)
    overlap, removed, rate = measure_overlap(corpus), corpus.near_duplicates, entropy_rate(name)
    splits = {"train": corpus.train, "val": corpus.val}
    if as_json:
        sizes = {
            split: {"documents": part.n_documents, "characters": part.n_chars, "bytes": part.n_bytes}
            for split, part in splits.items()
        }
        facts = {"name": corpus.name, "sha256": corpus.sha256, "origin": corpus.origin}
        known = {} if rate is None else {"entropy_rate": asdict(rate)}
        copies = {"near_duplicates": removed and asdict(removed), "overlap": asdict(overlap)}
        print_json({**facts, **sizes, **copies, **known})
        return
    lines = {"name": corpus.name}
    for title, part in zip(("training", "validation"), splits.values(), strict=True):
        documents = humanize.number(part.n_documents, "document")
        lines[title] = f"{documents}, {part.n_chars:,} characters, {part.n_bytes:,} bytes"
    lines["SHA-256"] = corpus.sha256
    if corpus.origin:
        lines["built from"] = f"{corpus.origin}; another version of Python gives another text"
    if rate is not None:
        lines["entropy"] = str(rate)
    if removed is not None:
        lines["removed"] = str(removed)
    lines["overlap"] = str(overlap)
    click.echo("\n".join(f"{title + ':':12}{humanize.line(text)}" for title, text in lines.items()))
