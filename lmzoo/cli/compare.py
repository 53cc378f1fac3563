"""`lmzoo compare`: several models trained with one budget, and ranked."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from lmzoo import configs, humanize, targets
from lmzoo.cli.complete import complete_data, complete_models, complete_probes, complete_tune
from lmzoo.cli.group import (
    cli,
    context_option,
    device_option,
    documents_option,
    plugin_option,
    set_option,
    with_documents,
)


@cli.command(short_help="Train several models on the same tokens, and rank them.")
@click.argument("names", metavar="NAME...|RUN...", nargs=-1, required=True, shell_complete=complete_models)
@click.option(
    "--data",
    metavar="NAME|FILE|DIR|GLOB",
    shell_complete=complete_data,
    help="The text to train on.  [default: pydocs]",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/compare"), show_default=True)
@click.option("--tokenizer", metavar="char|byte|bpe:N", help="Tokenizer.  [default: char]")
@click.option(
    "--seeds",
    metavar="N",
    type=click.IntRange(1, 1000),
    default=1,
    help="Train each model N times, and rank only differences that exceed the noise.  [default: 1]",
)
@click.option(
    "--match",
    metavar="MEASURE=NUMBER",
    help="Choose the widths of all models: params, params_non_embedding, active, flops (per token) or state (bytes).",
)
@click.option(
    "--budget", metavar="KIND=NUMBER", help="What each model is trained for: tokens, steps, flops or seconds."
)
@click.option(
    "--tune",
    metavar="SETTING[=A,B,...]",
    multiple=True,
    shell_complete=complete_tune,
    help="Search learning_rate, warmup_steps or min_learning_rate (in % of the learning rate) of each model: the same "
    "values for all, more while the best is the first or last. Several (NAME,NAME or --tune again): one after another.",
)
@click.option(
    "--halving",
    is_flag=True,
    help="Search at a part of the cost: after each part of the training, only the better half of the runs goes on.",
)
@click.option(
    "--optimizers", metavar="adamw,muon", help="Train each model with each optimizer; needs --tune learning_rate."
)
@click.option(
    "--sizes",
    metavar="N,N,N[,...]",
    help="Compare at several numbers of parameters, and fit a scaling curve to each model.",
)
@click.option(
    "--stride",
    metavar="N",
    type=click.IntRange(1, 1 << 24),
    help="Evaluate in windows that start N tokens apart, so that each target has more context.  [default: the context "
    "length]",
)
@click.option(
    "--probes",
    metavar="NAME,...",
    shell_complete=complete_probes,
    help="Train the models on small tasks too, as lmzoo probe does (mqar, parity, ...; all).",
)
@click.option("--difficulty", metavar="LEVEL,...", help="Of the probes: easy, medium, hard; or all.  [default: easy]")
@click.option("--probe-steps", metavar="N", type=click.IntRange(1, 10**9), help="Of each probe.  [default: 2000]")
@click.option(
    "--workers",
    metavar="N",
    type=int,
    help="Runs made at once.  [default: one for each CPU core with --seeds or --tune, else 1]",
)
@click.option("--engine", metavar="processes|ray", default="processes", help="What makes them.  [default: processes]")
@click.option("--json", "as_json", is_flag=True, help="Print results.json in the place of the table.")
@device_option
@context_option
@documents_option
@set_option
@plugin_option
def compare(
    names: tuple[str, ...],
    data: str | None,
    out: Path,
    tokenizer: str | None,
    seeds: int,
    match: str | None,
    budget: str | None,
    tune: tuple[str, ...],
    halving: bool,
    optimizers: str | None,
    sizes: str | None,
    stride: int | None,
    probes: str | None,
    difficulty: str | None,
    probe_steps: int | None,
    workers: int | None,
    engine: str,
    as_json: bool,
    context: str,
    documents: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Train several models on the same tokens in the same order, and rank them.

    A name may be a Python file, which stands for all models that it registers. Writes results.json, table.md and
    report.html. Run it again after an interruption: it continues. --set sets what a model has; --set FAMILY.KEY=VALUE
    only for models of this family. Finished runs that saw the same tokens in the same order are compared without
    training.

    \b
    lmzoo compare bigram mlp.tiny lstm.tiny gpt2.tiny mamba.tiny
    lmzoo compare gpt2.tiny my_model.py
    lmzoo compare gpt2.1m llama.1m --data novel.txt --set steps=2000 --out runs/two
    lmzoo compare gpt2.tiny mamba.tiny --set mamba.d_state=8 --set gpt2.tiny.learning_rate=0.01
    lmzoo compare gpt2.tiny mamba.tiny --seeds 5 --out runs/five
    lmzoo compare gpt2 mamba llama --match params=300k --budget tokens=5M --out runs/equal
    lmzoo compare gpt2.tiny mamba.tiny --tune learning_rate --seeds 3 --out runs/tuned
    lmzoo compare gpt2.tiny mamba.tiny --tune learning_rate,warmup_steps --halving --out runs/recipes
    lmzoo compare gpt2.tiny mamba.tiny --tune learning_rate=0.003,0.01 --tune min_learning_rate=0%,10% --out runs/decay
    lmzoo compare gpt2.tiny lstm.tiny --tune learning_rate --optimizers adamw,muon --out runs/optimizers
    lmzoo compare gpt2 mamba --sizes 100k,300k,1M --budget tokens=5M --seeds 3 --out runs/sizes
    lmzoo compare gpt2.tiny mamba.tiny --probes mqar,parity --out runs/skills
    lmzoo compare gpt2.tiny mamba.tiny --seeds 5 --workers 8 --out runs/five
    lmzoo compare runs/gpt2.tiny runs/mamba.tiny --out runs/both
    """
    from lmzoo.compare import compare as run_comparison
    from lmzoo.compare import series
    from lmzoo.compare.live import ComparisonProgress
    from lmzoo.compare.results import to_json
    from lmzoo.compare.table import print_results

    models = [
        name for target in names for name in (targets.model_names(target) if targets.is_file(target) else [target])
    ]
    options: dict[str, Any] = {
        "tokenizer": tokenizer,
        "seeds": seeds,
        "match": match,
        "budget": budget,
        "tune": tune[0] if len(tune) == 1 else list(tune) or None,
        "halving": halving,
        "optimizers": optimizers,
        "stride": stride,
        "context": context,
        "probes": probes,
        "difficulty": difficulty,
        "probe_steps": probe_steps,
        "settings": with_documents(configs.parse_overrides(overrides), documents),
        "command": shlex.join(["lmzoo", *sys.argv[1:]]),
        "listeners": [ComparisonProgress()],
        "keep_freed_memory": True,
        "workers": workers,
        "engine": engine,
    }
    if sizes is not None:
        scaling = series.compare_sizes(models, data, out, sizes=sizes, **options)
        if as_json:
            click.echo(humanize.plain_json(series.to_json(scaling)), nl=False)
        else:
            series.print_scaling(scaling, out)
        return
    results = run_comparison(models, data, out, **options)
    if as_json:
        click.echo(humanize.plain_json(to_json(results)), nl=False)
    else:
        print_results(results, out)
