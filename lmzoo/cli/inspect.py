"""`lmzoo inspect`: what models make of a text, as a page or as JSON."""

from __future__ import annotations

from pathlib import Path

import click

from lmzoo import humanize
from lmzoo.cli.group import cli, plugin_option, print_json, tokenizer_option
from lmzoo.errors import InputError
from lmzoo.terminal import shown

PAGE = Path("inspect.html")
QUIET_FLOPS = 3e12  # half a minute on a core; a command that takes longer says so


@cli.command(short_help="Show what runs make of a text, as an HTML page.")
@click.argument("runs", metavar="RUN|MODEL...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--text", required=True, help="The text to read; of a long one, the first tokens.")
@click.option("--out", type=click.Path(path_type=Path), help=f"The page.  [default: {PAGE}; none with --json]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, or a list for several runs.")
@tokenizer_option
@plugin_option
def inspect(runs: tuple[Path, ...], text: str, out: Path | None, as_json: bool, tokenizer: Path | None) -> None:
    """Show what runs make of a text: an HTML page that needs no network.

    The text is colored by surprise, the negative logarithm of each token's probability. The page shows what the model
    expected at each token, which earlier tokens influenced a prediction, and what the layers offer: attention weights,
    gates, chosen experts, norms of states. Several runs are shown side by side. At most 256 tokens are read, and of a
    model that cannot read past its context length, no more than that. See docs/inspect.md.

    \b
    lmzoo inspect runs/gpt2.tiny --text "The cat sat on the mat. The cat"
    lmzoo inspect runs/gpt2.tiny runs/mamba.tiny --text "The cat sat" --out both.html
    lmzoo inspect runs/lstm.tiny --text "The cat sat" --json
    """
    from lmzoo.inspect.influence import influence_flops
    from lmzoo.inspect.inspection import examine, most_tokens
    from lmzoo.inspect.page import write_page
    from lmzoo.runs.saved import load_run

    if not text:
        raise InputError("--text is empty: there is nothing to inspect")
    loaded = [(run, load_run(run, tokenizer)) for run in runs]  # all, before anything is computed
    found = []
    for path, run in loaded:
        name = humanize.line(str(path))
        flops = influence_flops(run.model, min(most_tokens(run.model), len(run.tokenizer.encode(text))))
        if flops > QUIET_FLOPS:
            click.echo(f"{name}: the influence takes {humanize.count(flops)}FLOPs, minutes on a CPU", err=True)
        found.append(examine(run.model, run.tokenizer, text, name=name))
        if note := found[-1].note:
            click.echo(note, err=True)
    if out is not None or not as_json:
        out = out or PAGE
        write_page(found, out)
    if as_json:
        values = [each.to_dict() for each in found]
        print_json(values if len(values) > 1 else values[0], ensure_ascii=False)
        return
    for each in found:
        click.echo(f"{each.name}: {each.nats:.4f} nats per token, {each.bits_per_byte:.4f} bits per byte")
    click.echo(shown(str(out)))
