"""Compares models at several sizes, and fits a scaling curve to each: `--sizes 300k,1M,3M`.

Each size is a comparison of its own in a folder of its own, with all that belongs to it: `--match params=SIZE`, ranks,
a report. The losses of all of them, and the curves (`scaling.fit_curve`), are in scaling.json, scaling.md and
scaling.html.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmzoo import humanize
from lmzoo.compare.budget import parse_budget
from lmzoo.compare.comparison import compare
from lmzoo.compare.findings import listed
from lmzoo.compare.plan import are_runs, make_specs
from lmzoo.compare.results import FILE as RESULTS_FILE
from lmzoo.compare.results import TRAINING_PASSES, ModelResult, Results
from lmzoo.compare.scaling import LEAST_SIZES, Crossing, Curve, crossings, fit_curve
from lmzoo.compare.sizes import match_specs
from lmzoo.compare.statistics import CONFIDENCE
from lmzoo.errors import ConfigError, InputError
from lmzoo.matching import parse_number
from lmzoo.runs.directory import check_directory
from lmzoo.runs.inputs import PreparedData, prepare
from lmzoo.runs.lock import locked
from lmzoo.runs.spec import DEFAULT_DATA, DEFAULT_TOKENIZER
from lmzoo.storage import atomic
from lmzoo.train.events import fan_out

FILE = "scaling.json"
TABLE_FILE = "scaling.md"
PAGE_FILE = "scaling.html"
PART = "params="  # beginning of the name of the folder of a size
SCHEMA = 1
MEANING = (
    "L = E + A C^-a is fitted to the losses L (nats per token) at C training FLOPs (three times the FLOPs of the "
    "forward passes). E, which the curve tends to, is a parameter of the fit. The fit says nothing outside of the "
    "measured range."
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A model at one size: its parameters, its training FLOPs, and the losses of its seeds (empty without a rank)."""

    size: float
    params: int
    flops: float
    losses: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """A comparison at several sizes. A model that can have no curve has a problem instead, in words."""

    sizes: Sequence[float]
    points: dict[str, list[Point]] = field(default_factory=dict)  # a size without a result has none
    curves: dict[str, Curve] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    crossings: list[Crossing] = field(default_factory=list)
    complete: bool = True  # False if the comparison of a size is not finished


def parse_sizes(text: str) -> list[float]:
    """Parse "300k,1M,3M", in ascending order. Raises `ConfigError` for fewer than three sizes, or a size twice."""
    parts = text.split(",") if isinstance(text, str) else []
    sizes = sorted({parse_number(f"sizes={text!r}", part.strip()) for part in parts})
    if len(sizes) < LEAST_SIZES or len(sizes) < len(parts):
        raise ConfigError(f"sizes={text!r} needs {LEAST_SIZES} different sizes at least: a curve has three parameters")
    return sizes


def compare_sizes(names: Sequence[str], data: str | None, out: str | Path, *, sizes: str, **options: Any) -> Scaling:
    """Compare the models `names` with each number of parameters, and fit a curve to each model.

    `options` as in `compare`, except `match`. Each size is in a folder of `out` ("params=300000"); `out` itself gets
    scaling.json, scaling.md and scaling.html. A second call continues. Raises an `LmzooError` of one line for bad
    input.
    """
    numbers, folder = parse_sizes(sizes), Path(out)
    if options.pop("match", None) is not None:
        raise ConfigError(f"match cannot be given: sizes={sizes!r} chooses the numbers of parameters")
    budget = options.get("budget")
    if budget is not None and parse_budget(budget).kind in ("flops", "seconds"):
        raise ConfigError(f"budget={budget!r} cannot be given: sizes={sizes!r} must differ in FLOPs of training")
    if are_runs(names):
        raise ConfigError(f"sizes={sizes!r} cannot be given: {names[0]} is a finished run")
    folders = [folder / f"{PART}{size:.0f}" for size in numbers]
    found = os.path.isfile(folder / FILE) or any(map(os.path.isdir, folders))
    check_directory(folder, "comparison of sizes", found=found)
    with locked(folder) if folder.is_dir() else nullcontext():  # a new one is made when nothing can be refused any more
        prepared = _prepared(names, data, numbers, options)
        by_size = {
            size: compare(names, data, part, match=f"params={size:.0f}", prepared=prepared, **options)
            for size, part in zip(numbers, folders, strict=True)
        }
        scaling = fit(by_size)
        write(scaling, folder)
        return scaling


def finished_folders(folder: Path) -> list[Path]:
    """Return the folders of the sizes in a comparison of sizes that have results, in ascending order of the sizes."""
    found = [path.parent for path in folder.glob(f"{PART}*/{RESULTS_FILE}")]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def size_of(part: Path) -> float:
    """Return the size of which `part` is the folder. Raises `InputError` for another folder."""
    try:
        return parse_number(part.name, part.name.removeprefix(PART))
    except ConfigError as error:
        raise InputError(str(error)) from None


def _prepared(
    names: Sequence[str], data: str | None, sizes: Sequence[float], options: Mapping[str, Any]
) -> PreparedData:
    """Prepare the text of all comparisons. Raises `ConfigError` for a size that a model cannot have."""
    data, tokenizer = DEFAULT_DATA if data is None else data, options.get("tokenizer")
    tokenizer, settings = DEFAULT_TOKENIZER if tokenizer is None else tokenizer, options.get("settings") or {}
    specs = make_specs(names, data, tokenizer, settings)
    emit = fan_out(options.get("listeners", ()))
    prepared = prepare(specs[0].data, tokenizer, emit, specs[0].train.documents)
    for size in sizes:
        match_specs(specs, f"params={size:.0f}", prepared.tokenizer.vocab_size)
    return prepared


def fit(by_size: dict[float, Results]) -> Scaling:
    """Fit the curves of the models to their results at each size."""
    scaling = Scaling(sizes=list(by_size), complete=all(results.complete for results in by_size.values()))
    for size, results in by_size.items():
        for model in [*results.ranked, *results.unranked]:  # the order of results.json, also before it is written
            scaling.points.setdefault(model.name, []).append(_point(size, model))
    for name, points in scaling.points.items():
        problem = _problem(points, scaling.sizes)
        if problem:
            scaling.problems[name] = problem
        else:
            scaling.curves[name] = fit_curve([point.flops for point in points], [point.losses for point in points])
    scaling.crossings.extend(crossings(scaling.curves))
    return scaling


def _point(size: float, model: ModelResult) -> Point:
    losses = [cell.loss for cell in model.cells if cell.loss is not None] if model.status == "ranked" else []
    flops = TRAINING_PASSES * model.flops_per_token * model.tokens
    return Point(size=size, params=model.params, flops=flops, losses=losses)


def _problem(points: Sequence[Point], sizes: Sequence[float]) -> str:
    losses = {point.size: len(point.losses) for point in points}
    for size in sizes:
        if not losses.get(size):
            return f"has no loss at {humanize.count(size)} parameters"
    if len(set(losses.values())) > 1:
        return f"has {min(losses.values())} to {max(losses.values())} seeds, not the same number at each size"
    if len({point.flops for point in points}) < len(points) or not all(point.flops for point in points):
        return "has the same training FLOPs at several sizes"
    return ""


def to_json(scaling: Scaling) -> str:
    """Return the text of scaling.json."""
    models = {
        name: {
            "points": [asdict(point) for point in points],
            "curve": _curve(scaling.curves[name]) if name in scaling.curves else None,
            "problem": scaling.problems.get(name, ""),
        }
        for name, points in scaling.points.items()
    }
    found = [asdict(crossing) for crossing in scaling.crossings]
    content = {"schema": SCHEMA, "sizes": scaling.sizes, "models": models, "crossings": found}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _curve(curve: Curve) -> dict[str, Any]:
    return {"E": curve.E, "A": curve.A, "a": curve.a, "flops": list(curve.flops), "intervals": curve.intervals()}


def write(scaling: Scaling, folder: Path) -> None:
    """Write scaling.json, and what people read."""
    atomic.write_file(folder / FILE, to_json(scaling))
    write_report(scaling, folder)


def write_report(scaling: Scaling, folder: Path) -> list[Path]:
    """Write scaling.html and scaling.md; returns their paths."""
    from lmzoo.compare.scaling_page import html

    for name, content in ((PAGE_FILE, html(scaling)), (TABLE_FILE, markdown(scaling))):
        atomic.write_file(folder / name, content)
    return [folder / PAGE_FILE, folder / TABLE_FILE]


def markdown(scaling: Scaling) -> str:
    """Return the losses by size, the curves and their crossings as Markdown."""
    from lmzoo.compare.table import escaped

    headings = ["model", *(f"{humanize.count(size)} params" for size in scaling.sizes), "E", "a"]
    lines = [f"| {' | '.join(headings)} |", "|---|" + "---:|" * (len(headings) - 1)]
    lines += [f"| {' | '.join(map(escaped, row))} |" for row in rows(scaling)]
    return "\n".join([*lines, "", *(f"- {escaped(note)}" for note in notes(scaling))]) + "\n"


def rows(scaling: Scaling) -> list[list[str]]:
    """Return for each model its mean loss at each size, E and a, with intervals if there are several seeds."""
    found = []
    for name, points in scaling.points.items():
        means = {p.size: humanize.loss(sum(p.losses) / len(p.losses)) for p in points if p.losses}
        losses = [means.get(size, humanize.MISSING) for size in scaling.sizes]
        curve, figures = scaling.curves.get(name), [humanize.MISSING] * 2
        if curve is not None:
            figures = [_figure(value, curve.intervals().get(key)) for key, value in (("E", curve.E), ("a", curve.a))]
        found.append([humanize.line(name), *losses, *figures])
    return found


def _figure(value: float, interval: tuple[float, float] | None) -> str:
    return f"{value:.3f}" if interval is None else f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def notes(scaling: Scaling) -> list[str]:
    """State what the curves are, where they cross, and which models have none."""
    found = [MEANING]
    if not scaling.complete:
        found.insert(0, "This comparison is not finished: run the same command again to continue it.")
    if len(scaling.sizes) == LEAST_SIZES:
        found.append("Three sizes fix the three parameters: only more sizes can show whether the form is right.")
    if scaling.curves and all(len(curve.drawn) == 0 for curve in scaling.curves.values()):
        found.append("One seed gives no intervals.")
    if endless := [name for name, curve in scaling.curves.items() if curve.E == 0]:
        found.append(f"E = 0, the least that is allowed, fits best for {listed(endless)}: these sizes show no limit.")
    if flat := [name for name, curve in scaling.curves.items() if curve.A == 0]:
        found.append(f"The losses of {listed(flat)} do not fall with the size, so nothing follows from the exponent a.")
    found += map(_crossing_note, scaling.crossings)
    return found + [f"{name} {problem}, so it has no curve." for name, problem in scaling.problems.items()]


def _crossing_note(crossing: Crossing) -> str:
    """State where two curves cross, as a finding only if nearly all draws of the bootstrap agree."""
    below, above, at = crossing.below, crossing.above, f"{humanize.count(crossing.flops)} training FLOPs"
    if crossing.share is None:
        return f"The curves of {below} and {above} cross at {at}; with one seed it is not known how certain that is."
    share = f"{100 * crossing.share:.0f} % of the draws of the bootstrap"
    if crossing.share < CONFIDENCE or crossing.interval is None:
        return (
            f"The curves of {below} and {above} cross at {at}, but in {share} alone: these seeds do not show which of "
            "the two has the lower loss on either side."
        )
    low, high = map(humanize.count, crossing.interval)
    return f"{below} has the lower loss up to {at} ({low} to {high}; they cross in {share}), {above} above."


def print_scaling(scaling: Scaling, folder: Path) -> None:
    """Print the table, the notes, and where the reports are."""
    from lmzoo import terminal

    console = terminal.results_console()
    headings = ["model", *(humanize.count(size) for size in scaling.sizes), "E", "a"]
    given: dict[str, Any] = {"width": console.width, "left": ["model"], "wrapped": "model", "drop": ("a", "E")}
    console.print(terminal.table(headings, rows(scaling), **given))
    for note in notes(scaling):
        console.print(note, markup=False)
    console.print(f"report: {folder / PAGE_FILE}", markup=False, soft_wrap=True)
