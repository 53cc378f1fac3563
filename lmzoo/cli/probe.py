"""`lmzoo probe`: models trained on small tasks, each of which needs one skill."""

from __future__ import annotations

from pathlib import Path

import click

from lmzoo import configs, humanize, targets
from lmzoo.cli.complete import complete_models, complete_probes
from lmzoo.cli.group import cli, plugin_option, set_option


@cli.command(short_help="Train models on probes, and show how often they are right.")
@click.argument("names", metavar="MODEL...", nargs=-1, required=True, shell_complete=complete_models)
@click.option(
    "--probes",
    metavar="NAME,...",
    default="all",
    show_default=True,
    shell_complete=complete_probes,
    help="mqar, induction, copying, ngrams, parity, addition, s3, s5, dyck, needle.",
)
@click.option(
    "--difficulty", metavar="LEVEL,...", default="easy", show_default=True, help="easy, medium, hard; or all."
)
@click.option("--steps", type=click.IntRange(1, 10**9), help="Training steps of each model and probe.  [default: 2000]")
@click.option("--seeds", metavar="N", type=click.IntRange(1, 1000), default=1, help="Train N times.  [default: 1]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/probe"), show_default=True)
@click.option("--workers", metavar="N", type=int, default=1, help="Cells trained at once.  [default: 1]")
@click.option("--device", metavar="cpu|cuda", help="Where to train.  [default: a GPU if there is one]")
@click.option("--json", "as_json", is_flag=True, help="Print probes.json in the place of the table.")
@set_option
@plugin_option
def probe(
    names: tuple[str, ...],
    probes: str,
    difficulty: str,
    steps: int | None,
    seeds: int,
    out: Path,
    workers: int,
    device: str | None,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Train models on probes from new weights, and show how often they answer right.

    A probe is a small task that needs one skill: to recall, to copy, to count, to track a state. Each model is tested
    at the length of its training sequences, and at a greater one. Writes probes.json. Run it again after an
    interruption: it continues; with more models, probes or seeds, it adds them. All models have the same steps and
    batch size (64); the learning rate is the preset's. A name may be a Python file.

    \b
    lmzoo probe gpt2.tiny mamba.tiny --probes mqar,parity
    lmzoo probe llama.tiny deltanet.tiny --probes s3,s5 --difficulty all --seeds 3
    lmzoo probe gpt2.tiny my_model.py --probes dyck --set learning_rate=0.001 --steps 500
    lmzoo probe gpt2.tiny mamba.tiny --seeds 3 --workers 2
    """
    from lmzoo.compare.live import ComparisonProgress
    from lmzoo.probing import probe_models
    from lmzoo.probing.results import to_json
    from lmzoo.probing.table import print_results

    results = probe_models(
        [name for target in names for name in (targets.model_names(target) if targets.is_file(target) else [target])],
        probes,
        out,
        difficulty=difficulty,
        steps=steps,
        seeds=seeds,
        settings=configs.parse_overrides(overrides),
        listeners=[ComparisonProgress()],
        keep_freed_memory=True,
        workers=workers,
        device=device,
    )
    if as_json:
        click.echo(humanize.plain_json(to_json(results)), nl=False)
    else:
        print_results(results, out)
