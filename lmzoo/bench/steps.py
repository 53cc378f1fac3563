"""Training steps to be timed: steps of the real trainer, and steps of a bare training loop.

Legend: B batch, T time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from lmzoo.compiling import compiled
from lmzoo.data.batches import BatchStream
from lmzoo.data.store import TokenSplit, TokenStore
from lmzoo.distributed.ranks import ALONE
from lmzoo.model import LanguageModel
from lmzoo.runs.metrics import MetricsWriter
from lmzoo.train import malloc
from lmzoo.train.checkpoint import TrainingState
from lmzoo.train.config import TrainConfig
from lmzoo.train.events import EndEvent, StartEvent, StepEvent, fan_out
from lmzoo.train.phases import PHASES as TRAINER_PHASES
from lmzoo.train.precision import autocast
from lmzoo.train.progress import ProgressBar
from lmzoo.train.trainer import Trainer

PHASES = (*TRAINER_PHASES, "rest")  # rest: logging, progress bar, and all other time between two steps

Step = Callable[[Tensor, Tensor], object]  # trains on one batch: idx_BT, targets_BT
Work = Callable[[int], float]  # takes one warm-up step and the given number of steps; returns the seconds of the latter


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished its work, which it does asynchronously; do nothing for a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class TrainerSteps:
    """Steps of the real trainer, with the listeners of `lmzoo train`; the progress bar is drawn to /dev/null.

    Each call begins a run and leaves it after the requested number of steps, before its evaluation and checkpoint.
    `phases` holds the seconds of each phase of every timed step. With `synchronize`, the GPU is synchronized at the end
    of each phase.
    """

    def __init__(
        self,
        model: LanguageModel,
        optimizer: Optimizer,
        config: TrainConfig,
        precision: str,
        store: TokenStore,
        folder: Path,
        *,
        keep_freed_memory: bool = False,
    ) -> None:
        """Make `folder` for the metrics. Other code may train `model` with `optimizer` between two calls."""
        folder.mkdir()
        self.phases: list[dict[str, float]] = []
        self.synchronize = False
        self._keep_freed_memory = keep_freed_memory
        self.device = model.device
        self._model, self._optimizer, self._config, self._precision = model, optimizer, config, precision
        self._store, self._folder = store, folder
        self._terminal = open(os.devnull, "w")  # noqa: SIM115 (closed by `close`)
        progress = ProgressBar(Console(file=self._terminal, force_terminal=True, width=100))
        self._emit = fan_out([MetricsWriter(folder, config.log_every), progress])
        tokens = config.batch_size * model.config.context_length
        flops = 3 * tokens * model.flops_per_token(model.config.context_length)
        self._emit(
            StartEvent("", model.num_params(), 0, config.steps, tokens, precision, self.device.type, folder, flops)
        )

    def __call__(self, steps: int) -> float:
        """Take one step to warm up caches and memory, and then `steps` steps; return the seconds of the latter."""
        seconds = 0.0
        since = time.perf_counter()
        with contextlib.closing(self._trainer(1 + steps).train()) as events:
            for event in events:
                self._emit(event)
                assert isinstance(event, StepEvent), event
                if event.step in (1, 1 + steps):
                    wait_for(self.device)
                spent = time.perf_counter() - since
                since += spent
                if event.step > 1:
                    self.phases.append({**event.phases, "rest": spent - sum(event.phases.values())})
                    seconds += spent
                if event.step == 1 + steps:
                    break
        return seconds

    def _trainer(self, steps: int) -> Trainer:
        """Make a trainer at the start of a run of `steps` steps, which evaluates and saves only after the last one."""
        config = replace(self._config, steps=steps, warmup_steps=0, eval_every=steps, checkpoint_every=steps)
        return Trainer(
            model=self._model,
            parallel_model=self._model,
            optimizer=self._optimizer,
            batches=BatchStream(
                self._store.train.tokens, config.batch_size, self._model.config.context_length, config.seed
            ),
            val=self._store.val,
            config=config.resolved(),
            precision=self._precision,
            run=self._folder,
            state=TrainingState(),
            ranks=ALONE,
            synchronize=self.synchronize,
            keep_freed_memory=self._keep_freed_memory,
        )

    def close(self) -> None:
        """Close the files of the listeners, and restore stdout, which the progress bar redirects."""
        self._emit(EndEvent())
        self._terminal.close()


class PlainSteps:
    """Steps by a function other than the trainer, which cycle through the given batches."""

    def __init__(
        self,
        step: Step,
        batches: Sequence[tuple[Tensor, Tensor]],
        device: torch.device,
        *,
        keep_freed_memory: bool = False,
    ) -> None:
        """Set the memory allocator as the trainer does if `keep_freed_memory`."""
        self._step = step
        self._batches: Iterator[tuple[Tensor, Tensor]] = itertools.cycle(batches)
        self._device = device
        self._keep_freed_memory = keep_freed_memory

    def __call__(self, steps: int) -> float:
        """Take one step to warm up caches and memory, and then `steps` steps; return the seconds of the latter."""
        with malloc.keep_freed_memory(self._keep_freed_memory):
            self._step(*next(self._batches))
            wait_for(self._device)
            began = time.perf_counter()
            for _ in range(steps):
                self._step(*next(self._batches))
            wait_for(self._device)
            return time.perf_counter() - began


def bare_step(model: LanguageModel, optimizer: Optimizer, config: TrainConfig, precision: str) -> Step:
    """Make a bare training step, with only forward, backward, gradient clipping, update."""
    forward = compiled(model) if config.compile else model
    parameters = list(model.parameters())

    def step(idx_BT: Tensor, targets_BT: Tensor) -> None:
        with autocast(model.device, precision):
            _, loss = forward(idx_BT.to(model.device), targets_BT.to(model.device), return_logits=False)
        loss.backward()
        if config.grad_clip:
            nn.utils.clip_grad_norm_(parameters, config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()

    return step


def random_store(folder: Path, vocab_size: int, n_tokens: int) -> TokenStore:
    """Make a store of random tokens, in a memory-mapped file like the tokens of a real text."""
    dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
    np.random.default_rng(0).integers(vocab_size, size=n_tokens).astype(dtype).tofile(folder / "tokens.bin")
    tokens = np.memmap(folder / "tokens.bin", dtype=dtype, mode="r")
    train = TokenSplit("random", "train", tokens, n_tokens, n_tokens, n_tokens)
    return TokenStore("random", "", "", train, replace(train, split="val"))


def batches_of(store: TokenStore, config: TrainConfig, context_length: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """Return the first `count` batches of the trainer."""
    stream = BatchStream(store.train.tokens, config.batch_size, context_length, config.seed)
    return [stream.batch(step) for step in range(count)]
