"""Forecasts how long a comparison takes, from a few steps of each model, an evaluation and some decoded tokens."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lmzoo.bench.steps import PlainSteps, bare_step
from lmzoo.compare import sample
from lmzoo.compare.decode_speed import decode_length
from lmzoo.compare.grid import Cell
from lmzoo.data.store import TokenSplit
from lmzoo.hardware import default_device, timed
from lmzoo.model import LanguageModel
from lmzoo.state import State
from lmzoo.storage import checkpoints
from lmzoo.train.activation_checkpointing import activation_checkpointing
from lmzoo.train.carried import ContextUse, rows_of
from lmzoo.train.config import TrainConfig
from lmzoo.train.evaluate import TOKENS_AT_A_TIME, evaluate
from lmzoo.train.optimizer import make_optimizer
from lmzoo.train.precision import autocast, resolve_precision
from lmzoo.train.token_losses import target_losses

STEPS_SECONDS = 0.4  # duration of the steps that are timed for a speed
FORECAST_SHARE = 0.25  # share of this duration that is enough for a forecast
MOST_STEPS = 100
CPU_TOKENS = TOKENS_AT_A_TIME // 4  # evaluated on a CPU, where a larger batch costs as much a token
NEW_TOKENS = 4
FAR = 2048  # tokens in a state that grows, after which a window is timed
DECODINGS = 2  # a decoding speed needs a short warm-up and one or more repetitions


@dataclass(frozen=True)
class Cost:
    """Seconds of one optimizer step, of one token of an evaluation, and of one decoded token.

    `reading` are the seconds of an evaluation of the text that is reported, where it is read in another way than in
    training: in windows that overlap, or with a carried context.
    """

    step: float
    eval_token: float
    new_token: float
    reading: float = 0.0


def measure_cost(
    cell: Cell,
    vocab_size: int,
    reported: TokenSplit,
    keep_freed_memory: bool,
    *,
    stride: int | None = None,
    context: ContextUse = "reset",
) -> Cost:
    """Measure what the model of a cell costs on this machine with torch's present number of threads, in a second."""
    with torch.random.fork_rng(devices=[]):
        model = cell.spec.make_model(vocab_size, device=default_device())
        step = 0.0
        if model.traits.trainable:
            step = step_seconds(model, cell.spec.train, keep_freed_memory, share=FORECAST_SHARE)
        context_length = model.config.context_length
        tokens = min(CPU_TOKENS if model.device.type == "cpu" else TOKENS_AT_A_TIME, reported.n_tokens - 1)
        precision = resolve_precision(cell.spec.train.precision, model, cell.spec.train.batch_size)
        eval_token = timed(lambda: evaluate(model, reported, precision=precision, tokens=tokens)) / tokens
        reading = 0.0
        if context == "carried":
            reading = carried_seconds(model, reported, precision)
        elif stride is not None:
            reading = eval_token * reported.n_tokens * context_length / stride
        idx_BT = torch.zeros((1, context_length), dtype=torch.long, device=model.device)
        with torch.no_grad():
            new_token = timed(lambda: model.generate(idx_BT, NEW_TOKENS, temperature=0.0)) / NEW_TOKENS
    return Cost(step, eval_token, new_token, reading)


def carried_seconds(model: LanguageModel, split: TokenSplit, precision: str) -> float:
    """Estimate the seconds of an evaluation with a carried context, from a few windows.

    Where the state grows, a window takes longer the more tokens its row has had before; how much longer is measured
    with one row.
    """
    width = model.config.context_length
    rows = rows_of(split, width)
    targets_R = rows.targets_N.astype(float)

    def read(number: int, length: int, layers: State = None) -> State:
        idx_BT = torch.zeros((number, length), dtype=torch.long, device=model.device)
        layers = model.init_state(number, length)["layers"] if layers is None else layers
        with torch.no_grad(), autocast(model.device, precision):
            x_BTD, layers = model.features(idx_BT, layers)
            target_losses(model, x_BTD, idx_BT).sum().item()
        return layers

    def seconds(number: int, layers: State = None) -> float:
        return min(timed(lambda: read(number, width, layers)) for _ in range(2))

    together = min(len(rows), max(1, TOKENS_AT_A_TIME // width))
    total = seconds(together) / (together * width) * targets_R.sum()
    if model.traits.state_growth == "linear" and targets_R.max() > width:
        layers = read(1, FAR)
        more = max(0.0, seconds(1, layers) - seconds(1))  # for `width` tokens after `FAR` others
        total += more / (width * FAR) * (targets_R**2).sum() / 2
    return float(total)


def step_seconds(
    model: LanguageModel, config: TrainConfig, keep_freed_memory: bool = False, *, share: float = 1.0
) -> float:
    """Measure the seconds of one optimizer step on random tokens, in about the `share` of `STEPS_SECONDS`.

    The learning rate is zero: a step takes as long, and the weights stay as they are. With a rate at which the training
    diverges, the model could not be evaluated afterwards.
    """
    model.train()
    shape = (config.batch_size, model.config.context_length)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), activation_checkpointing(model, config.gradient_checkpointing):
        idx_BT = torch.randint(model.config.vocab_size, shape, generator=generator).to(model.device)
        precision = resolve_precision(config.precision, model, config.batch_size)
        optimizer = make_optimizer(model, config)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        step = bare_step(model, optimizer, config, precision)
        work = PlainSteps(step, [(idx_BT, idx_BT)], model.device, keep_freed_memory=keep_freed_memory)
        seconds, number, enough = work(1), 1, share * STEPS_SECONDS
        if seconds < enough / 2:
            number = min(MOST_STEPS, round(enough / seconds))
            seconds = work(number)
        return config.grad_accumulation * seconds / number


def part_seconds(
    cell: Cell,
    cost: Cost,
    val: TokenSplit,
    start: int,
    end: int,
    *,
    first: bool = False,
    tuned: bool = False,
    trial: bool = False,
) -> float:
    """Return the seconds of the steps of a cell after `start`, up to `end`, and of what follows them.

    With `tuned` settings each evaluation reads a half of the validation split. A run of the search, a `trial`, ends
    with the half that chooses, any other with the half that is reported; the `first` cell of a model also with longer
    windows, a sample and a speed.
    """
    train = cell.spec.train.resolved()
    inside = min(end, train.steps - 1)  # evaluations before the last step
    evaluations = max(0, inside // train.eval_every - min(start, inside) // train.eval_every)
    decoded = 0
    evaluations += 1  # with `cost.reading`, that after the last step, or the losses by position
    if first and not trial:
        evaluations += 1
        decoded = sample.SAMPLE_TOKENS + DECODINGS * decode_length(cell.spec.model_config(1 << 16).context_length)
    tokens = evaluations * val.n_tokens * (0.5 if tuned else 1.0)
    seconds = max(0, end - start) * cost.step + tokens * cost.eval_token + decoded * cost.new_token
    return seconds + cost.reading


def steps_done(cell: Cell) -> int:
    """Return the step of the newest checkpoint of a cell, 0 without any."""
    return max((step for step, _ in checkpoints.saved(cell.run)), default=0) if cell.run.is_dir() else 0


def total_seconds(chains: Sequence[Sequence[Sequence[float]]], workers: int) -> float:
    """Return the time until all is done if each free worker takes the longest run that can begin.

    A chain is the work of one model: groups of runs, each of which can begin when the group before it has ended.
    """
    groups = [iter([group for group in chain if group]) for chain in chains]
    unfinished = [0] * len(groups)
    ready: list[tuple[float, int]] = []  # (negative seconds, chain)
    running: list[tuple[float, int]] = []  # (end, chain)

    def release(chain: int) -> None:
        for seconds in next(groups[chain], ()):
            heapq.heappush(ready, (-seconds, chain))
            unfinished[chain] += 1

    for chain in range(len(groups)):
        release(chain)
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            seconds, chain = heapq.heappop(ready)
            heapq.heappush(running, (now - seconds, chain))
        now, chain = heapq.heappop(running)
        unfinished[chain] -= 1
        if not unfinished[chain]:
            release(chain)
    return now
