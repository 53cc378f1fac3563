"""Measures training speed, the time of each phase, and utilisation: the share of this machine's best matrix product.

All variants are timed in turns within one process, in blocks of steps; figures are medians over the rounds. One step is
one batch. Legend: B batch, T time.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from lmzoo.bench.steps import PHASES, PlainSteps, TrainerSteps, Work, bare_step, batches_of, random_store
from lmzoo.errors import InputError
from lmzoo.hardware import SQUARE, hardware, matrix_rate, peak_resident, versions
from lmzoo.model import LanguageModel
from lmzoo.train.activation_checkpointing import activation_checkpointing
from lmzoo.train.config import TrainConfig
from lmzoo.train.optimizer import make_optimizer
from lmzoo.train.precision import resolve_precision

SCHEMA = 1
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}
BLOCK_SECONDS = 0.4  # steps are timed in blocks of about this length: one step of a small model is too short to time
MOST_STEPS = 200  # largest number of steps in a block
BATCHES = 16  # number of batches through which the bare loops cycle
TOKENS = 1 << 17  # smallest length of the random text


def bench_train(
    model: LanguageModel,
    config: TrainConfig,
    *,
    precisions: Sequence[str] = tuple(PRECISIONS),
    repeats: int = 5,
    block_seconds: float = BLOCK_SECONDS,
    peers: Mapping[str, Work] | None = None,
    keep_freed_memory: bool = False,
) -> dict[str, Any]:
    """Measure the training speed of `model` with the recipe `config`, in each of `precisions`, as JSON values.

    The steps are made by the real trainer, on random tokens, without evaluations and checkpoints. `peers` are steps of
    other implementations, timed in the same rounds; `keep_freed_memory` as in `train_run`, but not for peers. Each
    result has milliseconds per step and tokens/s. Results of the trainer also have:
    - `utilisation`: three times the declared FLOPs of the model (forward and backward) per second, divided by the rate
      of the machine's best matrix product in the same precision;
    - `phases`: the share of each phase in the time of a step;
    - `trainer_share`: the time of a trainer step relative to a bare loop with the same model and batches, minus one,
      and its standard error `trainer_share_error`, None below four repeats;
    - `peak_bytes`: peak memory, with weights, optimizer state and everything that a step allocates.

    The weights of the model are changed. Raises `InputError` for a model that is not trained by gradients.
    """
    if not model.traits.trainable:
        raise InputError(f"{model.family} is fitted in one pass, not trained: it has no training steps to time")
    recompute = config.gradient_checkpointing  # set for all steps below
    config = replace(config, grad_accumulation=1, gradient_checkpointing=False)
    tokens = config.batch_size * model.config.context_length
    optimizer = make_optimizer(model, config)
    model.train()
    with activation_checkpointing(model, recompute), tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        store = random_store(folder, model.config.vocab_size, max(TOKENS, 2 * tokens))
        batches = batches_of(store, config, model.config.context_length, BATCHES)
        trainers = {
            precision: TrainerSteps(
                model, optimizer, config, precision, store, folder / precision, keep_freed_memory=keep_freed_memory
            )
            for precision in precisions
        }
        works: dict[str, Work] = {}
        for precision, trainer in trainers.items():
            stack.callback(trainer.close)
            works[precision] = trainer
            bare = bare_step(model, optimizer, config, precision)
            works[f"bare loop {precision}"] = PlainSteps(
                bare, batches, model.device, keep_freed_memory=keep_freed_memory
            )
        works |= peers or {}
        rates = matrix_rates(model, tokens, precisions)
        seconds = in_blocks(works, repeats, block_seconds)
        again = matrix_rates(model, tokens, precisions)  # the machine may be less busy at the end
        rates = {name: max(rate, again[name]) for name, rate in rates.items()}
        flops = 3 * model.flops_per_token(model.config.context_length) * tokens
        results: list[dict[str, Any]] = []
        for precision, trainer in trainers.items():
            spent = median(seconds[precision])
            pairs = zip(seconds[precision], seconds[f"bare loop {precision}"], strict=True)
            ratios = [ours / bare for ours, bare in pairs]
            results.append(
                {
                    "name": precision,
                    **speed(spent, tokens),
                    "flops_per_s": flops / spent,
                    "utilisation": flops / spent / rates[precision],
                    "phases": phase_shares(trainer),
                    "trainer_share": median(ratios) - 1,
                    "trainer_share_error": median_error(ratios),
                    "peak_bytes": peak_bytes(model, optimizer, trainer),
                }
            )
        results += [{"name": peer, **speed(median(seconds[peer]), tokens)} for peer in peers or {}]
        del store  # some systems cannot remove a file that is still mapped
    return {
        "schema": SCHEMA,
        "params": model.num_params(),
        "batch_size": config.batch_size,
        "context_length": model.config.context_length,
        "flops_per_step": flops,
        "matrix_flops_per_s": rates,
        "auto": resolve_precision("auto", model, config.batch_size),
        "compile": config.compile,
        "gradient_checkpointing": recompute,
        "repeats": repeats,
        "results": results,
        "machine": {**hardware(model.device), **versions()},
    }


def in_blocks(works: Mapping[str, Work], repeats: int, seconds: float) -> dict[str, list[float]]:
    """Measure the seconds of one step of each work in each of `repeats` rounds, in which all works run in turn.

    Every second round runs in reverse order, so that no work always follows the same other one. Before the rounds, each
    work takes a few warm-up steps; the time of the last one decides how many steps make a block of about `seconds`.
    """
    sizes: dict[str, int] = {}
    for name, work in works.items():
        work(1)
        sizes[name] = max(1, min(MOST_STEPS, round(seconds / work(1))))
    spent: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats):
        for name, work in list(works.items())[:: -1 if number % 2 else 1]:
            spent[name].append(work(sizes[name]) / sizes[name])
    return spent


def matrix_rates(model: LanguageModel, tokens: int, precisions: Sequence[str]) -> dict[str, float]:
    """Measure FLOPs/s of matrix products in each precision; the best of a large product and the model's largest one."""
    shapes = [SQUARE]
    groups = model.parameter_groups(0.0)
    matrices = [p for group in groups if group["role"] == "matrix" for p in group["params"] if p.ndim == 2]
    if matrices:
        largest = max(matrices, key=torch.numel)
        shapes.append((min(tokens, 8192), largest.shape[1], largest.shape[0]))
    return {name: matrix_rate(PRECISIONS[name], *shapes, device=model.device) for name in precisions}


def phase_shares(trainer: TrainerSteps) -> dict[str, float]:
    """Return the share of each phase in the time of all steps except the first; a GPU is synchronized in each phase."""
    if trainer.device.type == "cuda":
        trainer.synchronize = True
        trainer.phases.clear()
        trainer(10)
    steps = trainer.phases[1:]
    total = sum(sum(step.values()) for step in steps)
    return {phase: sum(step[phase] for step in steps) / total for phase in PHASES}


def median_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the median, from the quartiles, which outliers hardly change.

    Returns None below four values.
    """
    if len(values) < 4:
        return None
    low, _, high = quantiles(values)
    deviation = (high - low) / 1.349  # of normally distributed values
    return 1.253 * deviation / math.sqrt(len(values))


def speed(seconds: float, tokens: int) -> dict[str, float]:
    """Return milliseconds per step and tokens per second."""
    return {"ms_per_step": seconds * 1e3, "tokens_per_s": tokens / seconds}


def peak_bytes(model: LanguageModel, optimizer: torch.optim.Optimizer, trainer: TrainerSteps) -> int | None:
    """Measure the peak memory of a step in bytes: weights, optimizer state, allocations; None if not known."""
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
        trainer(1)
        return torch.cuda.max_memory_allocated(model.device)
    held = [*model.parameters(), *model.buffers()]
    held += [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    allocated = peak_resident(lambda: trainer(1))
    return None if allocated is None else allocated + sum(tensor.nbytes for tensor in held)
