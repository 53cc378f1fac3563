"""Compares models: checks each, trains all with one budget, evaluates all on one split, writes the results.

The budget (steps, batch size, context length, seed) is the same for all, so every model reads the same tokens in the
same order. The rest of the recipe comes from the preset of each model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lmzoo import configs, plugins, registry
from lmzoo.compare.decode_speed import decode_length, decode_tokens_per_s
from lmzoo.compare.ngram import MAX_ORDER, NGram, bigram_limits
from lmzoo.compare.notes import context_notes
from lmzoo.compare.plan import RUNS, are_runs, cut_contexts, make_specs, read_specs
from lmzoo.compare.report import html
from lmzoo.compare.results import FILE, ModelResult, Reference, Results, portable, write_results
from lmzoo.compare.table import markdown
from lmzoo.conformance import ranking_problem
from lmzoo.data.batches import BatchStream
from lmzoo.data.corpora import load_corpus
from lmzoo.data.overlap import measure_overlap
from lmzoo.data.store import TokenSplit, TokenStore, require_length
from lmzoo.data.tokenizers import Tokenizer, load_tokenizer
from lmzoo.errors import DivergedError
from lmzoo.hardware import hardware, versions
from lmzoo.model import LanguageModel
from lmzoo.runs.directory import check_directory, read_tables, train_config
from lmzoo.runs.inputs import PreparedData, new_tokenizer, tokenize_corpus
from lmzoo.runs.metrics import read_metrics
from lmzoo.runs.run import train_run
from lmzoo.runs.saved import evaluate_run, load_run
from lmzoo.runs.spec import DEFAULT_DATA, DEFAULT_TOKENIZER, RunSpec
from lmzoo.storage import atomic
from lmzoo.train.config import TrainConfig
from lmzoo.train.events import EndEvent, Listener, NoteEvent, fan_out

COUNTED_TOKENS = 20_000_000  # largest number of tokens counted for the n-grams, which are all held in memory
SAMPLE_TOKENS = 300
SAMPLE_TEMPERATURE = 0.8
PROMPT_CHARACTERS = 40


def compare(
    names: Sequence[str],
    data: str | None,
    out: str | Path,
    *,
    tokenizer: str | None = None,
    settings: Mapping[str, Any] | None = None,
    prompt: str | None = None,
    command: str = "",
    listeners: Sequence[Listener] = (),
    keep_freed_memory: bool = False,
) -> Results:
    """Train the models `names` on `data` and rank them by validation loss, in the directory `out`.

    `settings` are overrides as in `lmzoo train --set`, see `make_specs`. The samples continue `prompt` (default: the
    beginning of the validation text); `command` is quoted in the report; `keep_freed_memory` as in `train_run`. Each
    model is checked first: a model that fails is not trained and has no rank; a model that diverges has no rank either;
    the report gives the reasons. Writes `results.json`, `table.md` and `report.html` after every model, so that an
    interrupted comparison has a report; the runs are in `out/runs/`. A second call continues the comparison and reuses
    finished runs.

    `names` can also be finished runs, which are not trained but compared as they are: they must have the same budget,
    text and tokenizer, and no `settings`. `data` and `tokenizer` are by default those of the runs, or `DEFAULT_DATA`
    and `DEFAULT_TOKENIZER`.

    Raises an `LmzooError` of one line for bad input, before anything is written; `Interrupted` on Ctrl-C.
    """
    folder = Path(out)
    if are_runs(names):
        specs, runs = read_specs(names, data, tokenizer, settings or {}), [Path(name) for name in names]
    else:
        tokenizer = tokenizer or DEFAULT_TOKENIZER
        specs = make_specs(names, data or DEFAULT_DATA, tokenizer, settings or {})
        runs = [folder / RUNS / name for name in names]
    check_directory(folder, "comparison", found=(folder / FILE).is_file() or (folder / RUNS).is_dir())
    emit = fan_out(listeners)
    corpus = load_corpus(specs[0].data)
    try:
        shared = load_tokenizer(runs[0]) if tokenizer is None else new_tokenizer(tokenizer, corpus, emit)
        store = tokenize_corpus(corpus, shared, emit)
    finally:
        emit(EndEvent())
    train, context_length = specs[0].train, specs[0].model_config(shared.vocab_size).context_length
    require_length(store.train, context_length)
    require_length(store.val, context_length)
    prompt_ids = shared.encode(prompt) if prompt else _beginning(store.val, shared)
    references, limits = _count(store, shared.vocab_size, train, context_length)
    overlap = measure_overlap(corpus)
    results = Results(
        corpus={
            "name": portable(corpus.name),
            "sha256": corpus.sha256,
            "origin": corpus.origin,
            "overlap": dataclasses.asdict(overlap) | {"text": str(overlap)},
            "train_tokens": store.train.n_tokens,
            "val_tokens": store.val.n_tokens,
            "val_bytes": store.val.n_bytes,
        },
        tokenizer={"spec": shared.spec, "vocab_size": shared.vocab_size, "sha256": shared.sha256},
        budget={
            "steps": train.steps,
            "batch_size": train.batch_size * train.grad_accumulation,
            "context_length": context_length,
            "tokens": train.steps * train.batch_size * train.grad_accumulation * context_length,
        },
        seed=train.seed,
        hardware=hardware(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        versions=versions(),
        models=[],
        references=references,
        bigram_limits=limits,
        prompt=shared.decode(prompt_ids),
        decode_tokens=decode_length(context_length),
        command=portable(command),
        cut_contexts=cut_contexts(specs),
        complete=False,
    )
    prepared = PreparedData(corpus, shared, store)
    for note in context_notes(results):
        emit(NoteEvent(note))
    for number, (name, spec, run) in enumerate(zip(names, specs, runs, strict=True), 1):
        emit(NoteEvent(f"{name} ({number} of {len(specs)}): checking"))
        try:
            row = _measure(name, spec, run, prepared, prompt_ids, listeners, keep_freed_memory)
        except (Exception, SystemExit) as error:  # one model of a plug-in must not abandon the others
            problem = plugins.blame(error, registry.registered_classes())
            if problem is None:
                raise
            row = ModelResult(name=name, status="failed", problem=portable(problem))
        if row.problem:
            emit(NoteEvent(f"{row.name} {row.status}: {row.problem}"))
        results = dataclasses.replace(results, models=[*results.models, row], complete=number == len(specs))
        write(results, folder)
    return results


def write(results: Results, folder: Path) -> None:
    """Write results.json, table.md and report.html."""
    folder.mkdir(parents=True, exist_ok=True)
    write_results(results, folder)
    atomic.write_file(folder / "table.md", markdown(results))
    atomic.write_file(folder / "report.html", html(results))


def _measure(
    name: str,
    spec: RunSpec,
    run: Path,
    data: PreparedData,
    prompt_ids: Sequence[int],
    listeners: Sequence[Listener],
    keep_freed_memory: bool,
) -> ModelResult:
    """Check, train and measure one model."""
    blank = spec.make_model(data.tokenizer.vocab_size, device="meta")
    row = ModelResult(
        name=name,
        params=blank.num_params(),
        params_non_embedding=blank.num_params(embedding=False),
        flops_per_token=blank.flops_per_token(blank.config.context_length),
        state_bytes=blank.state_bytes(blank.config.context_length),
        run=f"{RUNS}/{spec.model}",
        config={"model": configs.to_dict(blank.config), "train": configs.to_dict(spec.train.resolved())},
    )
    problem = ranking_problem(spec.model)
    if problem:
        return dataclasses.replace(row, status="failed", problem=problem)
    try:
        result = train_run(
            spec, run, resume=True, listeners=listeners, prepared=data, keep_freed_memory=keep_freed_memory
        )
    except DivergedError as error:
        row = dataclasses.replace(row, config=_config(row, run))
        return dataclasses.replace(row, status="diverged", problem=str(error), curve=_curve(run))
    if spec.train.eval_tokens:  # of a finished run, which was evaluated on a part of the split
        whole = evaluate_run(run)
        result = dataclasses.replace(result, loss=whole.loss, bits_per_byte=whole.bits_per_byte)
    model = load_run(run).model
    return dataclasses.replace(
        row,
        config=_config(row, run),
        loss=result.loss,
        bits_per_byte=result.bits_per_byte,
        train_tokens_per_s=result.tokens_per_s,
        decode_tokens_per_s=decode_tokens_per_s(model),
        seconds=result.seconds,
        eval_seconds=result.eval_seconds,
        curve=_curve(run),
        sample=_sample(model, data.tokenizer, prompt_ids, spec.train.seed),
    )


def _config(row: ModelResult, run: Path) -> dict[str, Any]:
    """Return the settings of a run, with those of its config.toml that a resumed run follows, and its precision."""
    tables = read_tables(run)
    train = configs.to_dict(train_config(run, tables))
    return {**row.config, "train": train, "precision": tables["machine"]["precision"]}


def _curve(run: Path) -> list[list[float]]:
    lines = [line for line in read_metrics(run) if line["split"] == "val"]
    return [[line["tokens"], line["loss"]] for line in lines if math.isfinite(line["loss"])]


def _sample(model: LanguageModel, tokenizer: Tokenizer, prompt_ids: Sequence[int], seed: int) -> str:
    """Generate one continuation of the prompt."""
    idx_BT = torch.tensor([list(prompt_ids)], device=model.device)
    generator = torch.Generator(model.device).manual_seed(seed)
    out_BT = model.generate(idx_BT, SAMPLE_TOKENS, temperature=SAMPLE_TEMPERATURE, generator=generator)
    return tokenizer.decode(out_BT[0, len(prompt_ids) :].tolist())


def _beginning(split: TokenSplit, tokenizer: Tokenizer) -> list[int]:
    """Choose a prompt: the first whole line of the split, cut between words if it is too long."""
    text = tokenizer.decode(split.tokens[:1000].tolist())
    lines = [line.strip() for line in text.split("\n")[1:-1]]
    line = next((line for line in lines if len(line) >= PROMPT_CHARACTERS // 4), text[:PROMPT_CHARACTERS])
    cut = line[: PROMPT_CHARACTERS + 1]
    return tokenizer.encode(cut.rsplit(" ", 1)[0] if len(cut) > PROMPT_CHARACTERS else cut)


def _count(
    store: TokenStore, vocab_size: int, config: TrainConfig, context_length: int
) -> tuple[list[Reference], dict[str, float]]:
    """Compute the losses of n-grams on the validation split, and the limits of a bigram table.

    They are counted on the windows that the models are trained on, each once, and restart at every window, so they see
    the same text with the same context as the models.
    """
    stream = BatchStream(store.train.tokens, 1, context_length, config.seed)
    budget = config.steps * config.batch_size * config.grad_accumulation
    n_windows = min(budget, stream.windows_per_epoch, max(1, COUNTED_TOKENS // context_length))
    train, val = stream.first_windows(n_windows), store.val.tokens
    counts = NGram(train, vocab_size, min(MAX_ORDER, context_length + 1))
    bits = val.size / (math.log(2) * store.val.n_bytes)
    references = []
    for order in range(1, counts.order + 1):
        loss = counts.loss(val, order, context_length=context_length)
        references.append(
            Reference(
                name=f"{order}-gram",
                order=order,
                loss=loss,
                bits_per_byte=loss * bits,
                counted_tokens=n_windows * context_length,
            )
        )
    on_train, on_val = bigram_limits(train, vocab_size, val)
    return references, {"train": on_train, "val": on_val}
