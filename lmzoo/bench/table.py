"""Tables of the results of `bench_train`, `bench_loss` and `bench_ops`, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Group
from rich.text import Text

from lmzoo import humanize, terminal
from lmzoo.bench.steps import PHASES


def train_tables(target: str, result: Mapping[str, Any], width: int = terminal.PIPED_COLUMNS) -> Group:
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
        _speeds(result["results"], width),
        "overhead: relative to a bare loop with the same model and batches, ± its standard error",
        "where the time of a step goes:",
        _phases(ours, width),
    )


def loss_table(result: Mapping[str, Any], width: int = terminal.PIPED_COLUMNS) -> Group:
    """Make the table of the result of `bench_loss`."""
    rows: list[list[str]] = []
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
            rows.append(cells)
    table = _table(["", "seconds", "time of plain", "memory", "memory of plain"], rows, width)
    sizes = f"{result['vocab_size']:,} tokens, {result['tokens']:,} positions, {result['d_model']} wide"
    return Group(f"loss of {sizes}, {result['machine']['threads']} threads, forward and backward", table)


def ops_tables(target: str, result: Mapping[str, Any], width: int = terminal.PIPED_COLUMNS) -> Group:
    """Makes the tables of the result of `bench_ops` for the model `target`: one for each algorithm."""
    parts: list[Any] = []
    kernels = ["kernel, ms"] if any(entry["kernel_ms"] is not None for entry in result["results"]) else []
    headings = ["tokens", "loop, ms", "fast form, ms", "ratio", *kernels, "takes", "because"]
    for op, entries in groupby(result["results"], key=lambda entry: entry["op"]):
        rows: list[list[str]] = []
        for entry in entries:
            naive_ms, fast_ms, kernel_ms = entry["naive_ms"], entry["fast_ms"], entry["kernel_ms"]
            cells = [f"{entry['T']:,}", _ms(naive_ms), _ms(fast_ms)]
            cells += [humanize.MISSING if naive_ms is None else f"{naive_ms / fast_ms:.2f}"]
            cells += [_ms(kernel_ms) for _ in kernels]
            rows.append([*cells, entry["form"], entry["why"]])
        table = terminal.table(headings, rows, width=width, left=("takes", "because"), drop=("because", "takes"))
        parts += [Text(op, "bold"), table, ""]
    machine = result["machine"]
    threads = f"{machine['device']}, {machine['threads']} threads"
    return Group(*parts, f"{target}, {result['rows']} rows, forward and backward, {result['precision']}; {threads}")


def _ms(value: float | None) -> str:
    return humanize.MISSING if value is None else f"{value:,.2f}"


def _speeds(entries: Sequence[Mapping[str, Any]], width: int) -> Text:
    rows: list[list[str]] = []
    for entry in entries:
        cells = [entry["name"], f"{entry['ms_per_step']:,.1f}", f"{entry['tokens_per_s']:,.0f}"]
        if "phases" in entry:
            peak = entry["peak_bytes"]
            cells += [f"{entry['utilisation']:.1%}", humanize.MISSING if peak is None else humanize.size(peak)]
            cells += [_share(entry["trainer_share"], entry["trainer_share_error"])]
        rows.append(cells)
    return _table(["", "ms/step", "tokens/s", "utilisation", "memory", "overhead"], rows, width)


def _share(share: float, error: float | None) -> str:
    if error is None:
        return f"{share:+.1%}"
    digits = 1 if max(abs(share), error) < 0.0995 else 0  # limits the width of the column
    return f"{share * 100:+.{digits}f} ±{error:.{digits}%}"


def _phases(entries: Sequence[Mapping[str, Any]], width: int) -> Text:
    rows = [[entry["name"], *(f"{entry['phases'][phase]:.1%}" for phase in PHASES)] for entry in entries]
    return _table(["", *PHASES], rows, width)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Text:
    """Makes a table of figures; in a narrow terminal the last columns go first."""
    padded = [[*row, *[""] * (len(headings) - len(row))] for row in rows]
    return terminal.table(headings, padded, width=width, left=headings[:1], drop=headings[:1:-1])
