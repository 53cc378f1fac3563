"""The functions `lmzoo.train`, `compare`, `sample`, `transplant` and `inspect`: what the commands of these names do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from lmzoo import arguments
from lmzoo.compare.comparison import compare as run_comparison
from lmzoo.compare.live import ComparisonProgress
from lmzoo.compare.results import Results
from lmzoo.conformance import ranking_problem
from lmzoo.data.chat import Messages
from lmzoo.data.tokenizers import Tokenizer
from lmzoo.errors import InputError
from lmzoo.generation.text import default_prompt, generate_text
from lmzoo.inspect.inspection import Inspection, examine
from lmzoo.model import LanguageModel
from lmzoo.runs.request import Request, make_request
from lmzoo.runs.run import RunResult, train_run
from lmzoo.runs.saved import load_run
from lmzoo.sampling_config import TEMPERATURE, named_settings
from lmzoo.train.events import Event, Listener, NoteEvent, StartEvent
from lmzoo.train.progress import ProgressBar
from lmzoo.transplant.operation import Init
from lmzoo.transplant.operation import transplant as run_transplant


def train(
    name: str | None = None,
    data: str | None = None,
    out: str | Path | None = None,
    *,
    tokenizer: str | None = None,
    resume: bool = False,
    start: str | Path | None = None,
    teacher: str | Path | None = None,
    progress: bool = True,
    listeners: Sequence[Listener] = (),
    **settings: Any,
) -> RunResult:
    """Train the model `name` on the text `data` (default "pydocs") in the directory `out` (default "runs/NAME").

    `settings` are those of `lmzoo train --set`, such as `steps=500` or `d_model=64`. With `resume`, an interrupted run
    continues; `name` may then be the run directory, which needs no settings, and a larger `steps` prolongs the run.
    With `start="runs/llama"`, a run or a saved model, its model is trained further, with its own tokenizer (`--from`);
    `teacher` is another one with the same tokenizer, whose predictions it learns, too (docs/transplant.md).
    `progress` shows a progress bar; each of `listeners` is called with every event of the run (`lmzoo.train.events`).

    The result holds the final figures; `.to_frame()` returns the logged losses as a pandas table, `.plot()` draws them.
    Raises an `LmzooError` of one line, with nothing written, for anything that cannot be used.
    """
    listeners = _callables(listeners)
    sources: dict[str, Any] = {"tokenizer": tokenizer, "start": start, "teacher": teacher}
    request = make_request(name, data, out, settings, **sources, resume=resume)
    flags = {"resume": request.resume, "prolong": request.prolong}
    with ProgressBar() as bar:
        shown = show_progress(request, bar) if progress else []
        return train_run(request.spec, request.out, listeners=[*shown, *listeners], **flags)


def show_progress(request: Request, bar: ProgressBar) -> list[Listener]:
    """Show the note of a request; returns listeners that show its progress, and a warning about a wrong model.

    The check behind the warning looks at a family with its defaults, so it is left out for a model that was trained
    before, whose mixers may be others.
    """
    model, is_new = request.spec.model, request.spec.start is None

    def warn_if_wrong(event: Event) -> None:
        if not isinstance(event, StartEvent) or not is_new:
            return
        bar.doing("checking the model", event.step)
        if problem := ranking_problem(model):
            bar(NoteEvent(f"warning: {model} {problem}; it is trained anyway, but its loss may mean nothing"))

    if request.note is not None:
        bar(NoteEvent(request.note))
    return [bar, warn_if_wrong]


def compare(
    names: Sequence[str | Path],
    data: str | None = None,
    out: str | Path = "runs/compare",
    *,
    tokenizer: str | None = None,
    seeds: int = 1,
    match: str | None = None,
    budget: str | None = None,
    tune: str | Sequence[str] | None = None,
    halving: bool = False,
    optimizers: str | None = None,
    stride: int | None = None,
    context: Literal["reset", "carried"] = "reset",
    probes: str | None = None,
    difficulty: str | None = None,
    probe_steps: int | None = None,
    workers: int = 1,
    engine: str = "processes",
    progress: bool = True,
    listeners: Sequence[Listener] = (),
    **settings: Any,
) -> Results:
    """Train the models `names` on the same tokens in the same order, and rank them by their validation loss.

    `names` can also be directories of finished runs, which are compared without training. `settings` are those of
    `lmzoo compare --set`: `steps=500` for all models, `**{"mamba.d_state": 8}` for one. Writes `results.json`,
    `table.md` and `report.html` in `out`; a second call continues an interrupted comparison.

    With `seeds=5`, each model is trained five times; `results.statistics` says which differences exceed the noise.
    `match="params=1M"` chooses the widths of the models, `budget="tokens=5M"` the number of steps, and
    `tune="learning_rate"` searches the learning rate of each with equal effort (`tune=["learning_rate=0.001,0.003",
    "warmup_steps"]` two settings), with `halving=True` at a part of the cost. `workers=4` makes four runs at once, in
    other processes: the program must then have its calls under `if __name__ == "__main__"`, and `listeners` do not hear
    the steps. With `engine="ray"`, the runs are made on a Ray cluster. `optimizers="adamw,muon"` trains each
    model with each of them (with `tune`). `stride=64` evaluates in windows that start 64 tokens apart, so that every
    prediction sees a long context; `context="carried"` lets each window begin with the state that the one before it has
    left. `probes="mqar,parity"` also trains the models on these probes, with `difficulty` and
    `probe_steps` as in `lmzoo probe`; `results.probes` has their accuracies.

    The results have a row for each model: `.to_frame()` returns them as a pandas table, `.plot()` draws their losses.
    Raises an `LmzooError` of one line, before anything is written, for anything that cannot be used.
    """
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise InputError(f"names={names!r} must be a list of names, such as ['bigram', 'gpt2.tiny']")
    models, out = [str(name) if isinstance(name, Path) else name for name in names], arguments.path("out", out)
    listeners = _callables(listeners)
    with ComparisonProgress() as bar:
        shown: list[Listener] = [bar] if progress else []
        return run_comparison(
            models,
            data,
            out,
            tokenizer=tokenizer,
            seeds=seeds,
            match=match,
            budget=budget,
            tune=tune,
            halving=halving,
            optimizers=optimizers,
            workers=workers,
            engine=engine,
            stride=stride,
            context=context,
            probes=probes,
            difficulty=difficulty,
            probe_steps=probe_steps,
            settings=settings,
            listeners=[*shown, *listeners],
        )


def _callables(listeners: Sequence[Listener]) -> list[Listener]:
    """Returns the listeners. Raises `InputError` unless they can be called: the first event of a run would fail."""
    if not arguments.is_sequence(listeners) or not all(callable(listener) for listener in listeners):
        raise InputError(f"listeners={listeners!r} must be a sequence of functions, each called with every event")
    return [*listeners]


Source = str | Path | RunResult | LanguageModel


def sample(
    source: Source,
    prompt: str | Messages | None = None,
    max_new_tokens: int = 500,
    *,
    tokenizer: str | Path | Tokenizer | None = None,
    stop: str | Sequence[str] = (),
    seed: int | None = None,
    **settings: Any,
) -> str:
    """Returns a text that a model generates: the prompt (default: a line break) and its continuation.

    `source` is the path of a run, a checkpoint or a saved model, the result of `lmzoo.train`, or a model with its
    `tokenizer`. The text ends after `max_new_tokens` tokens, before a `stop` string, or at a token that ends the texts
    of an imported model. `seed` makes it reproducible. If the prompt is a list of messages, such as {"role": "user",
    "content": "Hello"}, the result is the answer, by the chat template of the model.
    `settings` are those of `model.generate`, such as `top_p=0.9`; the temperature is 0.8 by default. Raises an
    `LmzooError` of one line.
    """
    model, found = _loaded(source, tokenizer)
    if seed is not None:
        seed = arguments.count("seed", seed)
    config = named_settings({"temperature": TEMPERATURE, **settings})
    prompt = default_prompt(found) if prompt is None else prompt
    beginning = prompt if isinstance(prompt, str) else found.apply_chat_template(prompt, add_generation_prompt=True)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    ends: dict[str, Any] = {"stop": stop, "stop_tokens": found.stop_tokens}
    new = generate_text(model, found, beginning, max_new_tokens, config, **ends, generator=generator)
    return (prompt if isinstance(prompt, str) else "") + "".join(new)


def transplant(
    model: LanguageModel,
    layers: Sequence[int] = (),
    to: str | None = None,
    *,
    init: Init = "qkv",
    seed: int = 1337,
    **settings: Any,
) -> LanguageModel:
    """Returns a copy of a trained model in which the mixers of `layers`, counted from 0, are those of the family `to`.

    With `init="qkv"`, the new mixers take over the projections of queries, keys, values and output that fit; with
    "new", all their weights are drawn from `seed`. `settings` such as `window=512` change the source's config where all
    shapes stay; `**{"gated_deltanet.d_conv": 2}` are settings of the new mixers. The model is saved, checked, trained
    and loaded like any other. Raises an `LmzooError` of one line.
    """
    return run_transplant(model, layers=layers, to=to, init=init, seed=seed, settings=settings).model


def inspect(source: Source, text: str, *, tokenizer: str | Path | Tokenizer | None = None) -> Inspection:
    """Returns what a model makes of a text: the surprise of each token, its alternatives, and values of the layers.

    `source` and `tokenizer` as in `sample`. A notebook shows the text, colored by surprise. At most 256 tokens are
    read; `lmzoo.inspect.influence` and `lmzoo.inspect.record` have no such limit. Raises an `LmzooError` of one line.
    """
    model, found = _loaded(source, tokenizer)
    path = source.path if isinstance(source, RunResult) else source
    return examine(model, found, text, name=None if isinstance(path, LanguageModel) else str(path))


def _loaded(source: Source, tokenizer: str | Path | Tokenizer | None) -> tuple[LanguageModel, Tokenizer]:
    """Load a model and its tokenizer, or take them as they are."""
    if isinstance(source, LanguageModel):
        if not isinstance(tokenizer, Tokenizer):
            raise InputError(f"tokenizer={tokenizer!r} must be the tokenizer of the model: lmzoo.load_tokenizer(path)")
        return source, tokenizer
    if isinstance(tokenizer, Tokenizer):
        raise InputError("tokenizer must be a path, or left out, if source is a path or a run")
    run = load_run(source.path if isinstance(source, RunResult) else source, tokenizer)
    return run.model, run.tokenizer
