"""Tables of the results of `bench_train` and `bench_loss`, for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from lmzoo import humanize
from lmzoo.bench.steps import PHASES


def train_tables(target: str, result: Mapping[str, Any]) -> Group:
    """Make the tables of the result of `bench_train` for the model `target`: speeds and phases."""
    ours = [entry for entry in result["results"] if "phases" in entry]
    params = f"{humanize.count(result['params'])} parameters"
    windows = f"{result['batch_size']} x {result['context_length']} tokens a step"
    rates = ", ".join(f"{name} {humanize.count(rate)}FLOP/s" for name, rate in result["matrix_flops_per_s"].items())
    threads = f", {result['machine']['threads']} threads"
    options = "".join(f", {name}" for name in ("compile", "gradient_checkpointing") if result[name])
    return Group(
        Text.assemble((target, "bold"), f": {params}, {windows}{threads}{options}"),
        f"best matrix product here: {rates}",
        f'precision = "auto" is {result["auto"]} here',
        _speeds(result["results"]),
        "overhead: relative to a bare loop with the same model and batches, ± its standard error",
        "where the time of a step goes:",
        _phases(ours),
    )


def loss_table(result: Mapping[str, Any]) -> Group:
    """Make the table of the result of `bench_loss`."""
    table = _table("", "seconds", "of plain", "memory", "of plain")
    for precision, found in result["results"].items():
        for name, seconds in found["seconds"].items():
            peak, ratio = found["peak_bytes"][name], found["memory_ratio"]
            cells = [
                f"{precision} {name}",
                f"{seconds:.2f}",
                "",
                humanize.MISSING if peak is None else humanize.size(peak),
            ]
            if name == "chunked":
                cells[2] = f"{found['time_ratio']:.2f}"
                cells += [humanize.MISSING if ratio is None else f"{ratio:.2f}"]
            table.add_row(*cells)
    sizes = f"{result['vocab_size']:,} tokens, {result['tokens']:,} positions, {result['d_model']} wide"
    return Group(f"loss of {sizes}, {result['machine']['threads']} threads, forward and backward", table)


def _speeds(entries: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("", "ms/step", "tokens/s", "utilisation", "memory", "overhead")
    for entry in entries:
        cells = [entry["name"], f"{entry['ms_per_step']:,.1f}", f"{entry['tokens_per_s']:,.0f}"]
        if "phases" in entry:
            peak = entry["peak_bytes"]
            cells += [f"{entry['utilisation']:.1%}", humanize.MISSING if peak is None else humanize.size(peak)]
            cells += [_share(entry["trainer_share"], entry["trainer_share_error"])]
        table.add_row(*cells)
    return table


def _share(share: float, error: float | None) -> str:
    if error is None:
        return f"{share:+.1%}"
    digits = 1 if max(abs(share), error) < 0.0995 else 0  # limits the width of the column
    return f"{share * 100:+.{digits}f} ±{error:.{digits}%}"


def _phases(entries: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("", *PHASES)
    for entry in entries:
        table.add_row(entry["name"], *(f"{entry['phases'][phase]:.1%}" for phase in PHASES))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    return table
