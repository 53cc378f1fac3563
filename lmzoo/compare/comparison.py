"""Compares models: checks each, trains all with one budget, evaluates all on one split, writes the results.

The budget (steps, batch size, context length) and the seeds are the same for all, so for one seed every model reads the
same tokens in the same order. The rest of the recipe comes from the preset of each model.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lmzoo.compare.budget import SPEEDS_FILE, Budget, Speeds, parse_budget, spend
from lmzoo.compare.course import Course
from lmzoo.compare.description import beginning, describe
from lmzoo.compare.earlier import refuse_other_results
from lmzoo.compare.grid import (
    RUNS,
    Cell,
    make_cell,
    make_seeds,
    refuse_other_runs,
    with_seed,
)
from lmzoo.compare.halving import refuse_halving, rungs, shares
from lmzoo.compare.measure import Measurer
from lmzoo.compare.notes import context_notes
from lmzoo.compare.optimizers import parse_optimizers, with_optimizers
from lmzoo.compare.parts import refuse_later
from lmzoo.compare.plan import are_runs, make_specs, read_specs
from lmzoo.compare.probes import Probing, plan_probes
from lmzoo.compare.protocol import carried_states
from lmzoo.compare.results import FILE, Results, portable, write_results
from lmzoo.compare.schedule import Schedule
from lmzoo.compare.search import Search
from lmzoo.compare.sizes import match_facts, match_notes, match_specs
from lmzoo.compare.tune import WARMUP, Grid, complete, parse_tune, refuse_settings, with_most_warmup
from lmzoo.compare.tuning import describe as describe_tuning
from lmzoo.compare.workers import choose_workers, limited_threads, make_engine
from lmzoo.compare.write import write_report
from lmzoo.data.batches import require_stride
from lmzoo.data.corpora import Corpus
from lmzoo.data.halves import validation_halves
from lmzoo.data.store import require_length
from lmzoo.data.tokenizers import load_tokenizer
from lmzoo.distributed.ranks import refuse_ranks
from lmzoo.errors import ConfigError
from lmzoo.hardware import default_device, hardware, versions
from lmzoo.matching import parse_match
from lmzoo.runs.directory import check_directory, keeps_near_duplicates, read_tables
from lmzoo.runs.inputs import PreparedData, prepare
from lmzoo.runs.lock import locked
from lmzoo.runs.spec import DEFAULT_DATA, DEFAULT_TOKENIZER, RunSpec
from lmzoo.train.carried import ContextUse, require_context
from lmzoo.train.events import Listener, NoteEvent, fan_out


def compare(
    names: Sequence[str],
    data: str | None,
    out: str | Path,
    *,
    tokenizer: str | None = None,
    seeds: int = 1,
    match: str | None = None,
    budget: str | None = None,
    tune: str | Sequence[str] | None = None,
    halving: bool = False,
    optimizers: str | None = None,
    stride: int | None = None,
    context: ContextUse = "reset",
    probes: str | None = None,
    difficulty: str | None = None,
    probe_steps: int | None = None,
    settings: Mapping[str, Any] | None = None,
    prompt: str | None = None,
    command: str = "",
    listeners: Sequence[Listener] = (),
    keep_freed_memory: bool = False,
    workers: int | None = 1,
    engine: str = "processes",
    prepared: PreparedData | None = None,
) -> Results:
    """Train the models `names` on `data` and rank them by validation loss, in the directory `out`.

    `settings` are overrides as in `lmzoo train --set`, see `make_specs`. The samples continue `prompt` (default: the
    beginning of the validation text); `command` is quoted in the report; `keep_freed_memory` as in `train_run`. Each
    model is checked first: a model that fails is not trained and has no rank; a model that diverges has no rank either;
    the report gives the reasons. Writes `results.json`, `report.html`, `table.md` and `papers.bib` after every run, so
    that an interrupted comparison has a report; the runs are in `out/runs/`. A second call continues the comparison and
    reuses finished runs; two at once are refused.

    Each model is trained with `seeds` seeds, the one of the settings and those that follow it: a seed decides the
    weights and the order of the data. With more than one, only differences that exceed the noise are ranked. `match`
    ("params=1M") chooses the widths of the models, see `lmzoo.matching`; `budget` ("tokens=5M", or steps, flops,
    seconds) the number of steps. `tune` ("learning_rate,warmup_steps", or several texts, see `parse_tune`) searches
    settings with equal effort for each model, and with `optimizers` ("adamw,muon") for each model and optimizer: these
    are rows such as "gpt2+muon". With `halving`, the better half of the runs of a search goes on after a part of the
    training. `stride` is the number of tokens between the windows of the final evaluation, see `lmzoo.train.evaluate`;
    with the `context` "carried", each window begins with the state that the one before it has left, see
    `lmzoo.train.carried`. `probes` ("mqar,parity") trains the models on these probes too, with `difficulty` and
    `probe_steps` as in `lmzoo probe`: see the module `probes`.

    `workers` runs are made at once (None: a number is chosen, see `choose_workers`), in processes of this machine or,
    with `engine="ray"`, on a cluster. With one worker they are made in this process, and `listeners` hear all events of
    them; with several, notes and the states of all runs. A program that uses several must be importable, with its calls
    under `if __name__ == "__main__"`.

    `names` can also be finished runs, which are not trained but compared as they are: they must have the same budget,
    text and tokenizer, and no `settings`. `data` and `tokenizer` are by default the ones of the runs, or `DEFAULT_DATA`
    and `DEFAULT_TOKENIZER`. `prepared` holds both, read and tokenized, for callers that compare several times on them.

    Raises an `LmzooError` of one line for bad input, before anything is written; `Interrupted` on Ctrl-C.
    """
    folder = Path(out)
    refuse_ranks("a comparison makes each run in one process, and --workers N makes N runs at once")
    require_context(context, stride)
    finished = are_runs(names)
    if finished:
        given: dict[str, Any] = {"match": match, "budget": budget, "tune": tune, "optimizers": optimizers}
        given |= {"seeds": None if seeds == 1 else seeds, "workers": None if workers == 1 else workers}
        given |= {"engine": None if engine == "processes" else engine, "halving": halving or None, "probes": probes}
        _refuse(f"{names[0]} is a finished run", **given)
        specs = read_specs(names, data, tokenizer, settings or {})
    else:
        if budget is not None and not {"steps", "train.steps"}.isdisjoint(settings or {}):
            _refuse("the setting steps is given, which is a budget too", budget=budget)
        data, tokenizer = DEFAULT_DATA if data is None else data, DEFAULT_TOKENIZER if tokenizer is None else tokenizer
        specs = make_specs(names, data, tokenizer, settings or {})
    if specs[0].train.documents == "isolated":
        _refuse("the rows of isolated documents do not overlap", stride=stride)
    every_seed = make_seeds(specs[0].train.seed, seeds)
    with_seed(specs[0], every_seed[-1])
    amount = Budget("steps", specs[0].train.steps) if budget is None else parse_budget(budget)
    if match is not None:
        parse_match(match)
    grids = [] if tune is None else parse_tune(tune)
    refuse_settings(grids, settings or {}, specs)
    if halving:
        refuse_halving(grids)
    plan = plan_probes(probes, difficulty, probe_steps)
    if optimizers is not None:
        rows = with_optimizers(specs, parse_optimizers(optimizers, grids, settings or {}))
        names, specs = list(rows), list(rows.values())
    found = os.path.isfile(folder / FILE) or os.path.isdir(folder / RUNS)
    check_directory(folder, "comparison", found=found, leftovers=(SPEEDS_FILE,))
    emit = fan_out(listeners)
    at_once = choose_workers(workers, engine, runs=seeds * len(names), one_each=seeds == 1 and tune is None)
    new = not folder.is_dir()
    with ExitStack() as held:
        if not new:
            held.enter_context(locked(folder))
        threads = held.enter_context(limited_threads(at_once))
        if prepared is None:
            prepared = _prepared(specs[0], Path(names[0]) if finished else None, emit)
        corpus, shared, store = prepared.corpus, prepared.tokenizer, prepared.store
        assert isinstance(corpus, Corpus)
        assert store is not None
        context_length = specs[0].model_config(shared.vocab_size).context_length
        require_length(store.train, context_length)
        require_length(store.val, context_length)
        require_stride(stride, context_length)
        prompt_ids = shared.encode(prompt) if prompt else beginning(store.val, shared)
        if match is not None:
            specs = match_specs(specs, match, shared.vocab_size)
        speeds = Speeds(folder, shared.vocab_size, hardware(default_device()), versions())
        if budget is not None:
            specs = spend(specs, amount, shared.vocab_size, lambda spec: _speed(spec, speeds, emit), store.train)
        grids = complete(grids, min(spec.train.steps for spec in specs))
        parts = shares(grids) if halving else [1.0]
        searches = [_search(grids, spec, parts) for spec in specs]
        halves = validation_halves(corpus, shared, specs[0].train.documents) if grids else None
        states = None
        if context == "carried":
            splits = [store.val] if halves is None else [half.split for half in halves]
            states = carried_states(dict(zip(names, specs, strict=True)), splits, shared.vocab_size)
        results = dataclasses.replace(
            describe(specs, prepared, store, amount, stride, states, halves),
            prompt=shared.decode(prompt_ids),
            command=portable(command),
            seeds=every_seed,
            match={} if match is None else match_facts(specs, match, shared.vocab_size),
            tuning={} if halves is None else describe_tuning(grids, halves, parts),
        )
        courses = [
            Course(_first_cell(name, spec, folder, finished=finished), every_seed, search, folder, shared.vocab_size)
            for name, spec, search in zip(names, specs, searches, strict=True)
        ]
        probing = None if plan is None else Probing(plan, dict(zip(names, specs, strict=True)), seeds, folder)
        if probing is not None:
            results = probing.add(results, probing.kept)
        measurer = Measurer(prepared, prompt_ids, listeners, keep_freed_memory, halves, at_once, stride, context)
        _refuse_runs(courses, measurer)
        refuse_other_results(folder, results)
        if new:  # until here input may be refused, and nothing is written
            held.enter_context(locked(folder))
        speeds.write()
        for note in [*match_notes(results), *context_notes(results)]:
            emit(NoteEvent(note))
        schedule = Schedule(
            results,
            courses,
            make_engine(engine, measurer, at_once, threads),
            measurer,
            emit,
            {} if probing is None else probing.steps_left,
        )

        def write_part(found: Results) -> None:
            write(found if probing is None else probing.marked(found), folder)

        results = schedule.run(folder, write_part, forecast=bool(listeners) and not finished)
        if probing is None:
            return results
        chosen = {course.first.model: course.seed_cells()[0].spec for course in courses if not course.failed}
        given: dict[str, Any] = {"listeners": listeners, "keep_freed_memory": keep_freed_memory}
        results = probing.run(results, chosen, workers=None if engine == "ray" else at_once, **given)
        write(results, folder)
        return results


def _search(grids: Sequence[Grid], spec: RunSpec, parts: Sequence[float]) -> Search | None:
    """Return the search of the settings of a model; None if there are none."""
    if not grids:
        return None
    compared = rungs(spec, parts, warmup_tuned=any(grid.setting == WARMUP for grid in grids))
    return Search(with_most_warmup(grids, compared[0]), compared)


def _prepared(spec: RunSpec, run: Path | None, emit: Listener) -> PreparedData:
    """Read and tokenize the text of new runs, or of the finished run in the directory `run` with its tokenizer."""
    tokenizer = spec.tokenizer if run is None else load_tokenizer(run)
    keep = run is not None and keeps_near_duplicates(read_tables(run))
    return prepare(spec.data, tokenizer, emit, spec.train.documents, keep_near_duplicates=keep)


def _first_cell(name: str, spec: RunSpec, folder: Path, *, finished: bool) -> Cell:
    """Return the cell of the first seed of a model: a run in `folder`, or the finished run in the directory `name`."""
    if finished:
        return Cell(name, spec, Path(name), f"{RUNS}/{spec.model}", keeps=False)
    return make_cell(folder, spec, spec, name)


def _refuse_runs(courses: Sequence[Course], measurer: Measurer) -> None:
    """Raise an `LmzooError` if the directory of a run that will be made holds one that cannot be continued."""
    missing = [part for course in courses for group in course.left() for part in group]
    cells = [*(cell for course in courses for cell in course.seed_cells()), *(part.cell for part in missing)]
    refuse_other_runs(cells, measurer.data)
    for part in missing:
        if part.end < part.cell.spec.train.steps:
            refuse_later(part.cell, part.end, measurer.part_key(part.cell))


def _refuse(why: str, **options: Any) -> None:
    """Raise `ConfigError` for the first option that is given, which cannot be combined with others."""
    for option, value in options.items():
        if value is not None:
            raise ConfigError(f"{option}={value!r} cannot be given: {why}")


def _speed(spec: RunSpec, speeds: Speeds, emit: Listener) -> float:
    emit(NoteEvent(f"{spec.model}: measuring the training speed"))
    return speeds.of(spec)


def write(results: Results, folder: Path) -> None:
    """Write results.json, and what is made from it: the report, the table and the papers."""
    folder.mkdir(parents=True, exist_ok=True)
    write_results(results, folder)
    write_report(results, folder)
