"""Steps of training to be timed: those of the real trainer, and those of the bare loop that anybody would write.

Legend: B batch, T time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from lmzoo.data.batches import BatchStream
from lmzoo.data.store import TokenSplit, TokenStore
from lmzoo.distributed.ranks import ALONE
from lmzoo.model import LanguageModel
from lmzoo.runs.metrics import MetricsWriter
from lmzoo.train.checkpoint import TrainingState
from lmzoo.train.config import TrainConfig
from lmzoo.train.events import EndEvent, Event, Listener, StartEvent, StepEvent
from lmzoo.train.malloc import keep_freed_memory
from lmzoo.train.precision import autocast
from lmzoo.train.progress import ProgressBar
from lmzoo.train.trainer import Trainer

PHASES = ("data", "forward", "backward", "clip", "optimizer", "rest")
NEVER = 1 << 40  # steps until something happens that the bench leaves out: the end, an evaluation, a checkpoint

Step = Callable[[Tensor, Tensor], object]  # trains on one batch: idx_BT, targets_BT
Work = Callable[[int], float]  # takes so many steps, after one that is not counted, and returns their seconds


def wait_for(device: torch.device) -> None:
    """A GPU does its work later than it is asked for: wait until all is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Enough(Exception):
    """The trainer has taken the steps that were asked for."""


@dataclass
class Phases:
    """A clock that the trainer's `mark` stops at the end of each phase; `steps` has the seconds of each, by phase."""

    device: torch.device
    exact: bool = True  # whether a GPU is waited for at each mark, which its own time is the longer for
    steps: list[dict[str, float]] = field(default_factory=list)
    _now: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    _since: float = 0.0

    def start(self) -> None:
        """Forget the time since the last mark."""
        self._since = time.perf_counter()

    def mark(self, phase: str) -> None:
        """The time since the last mark was that of `phase`; "rest" ends a step."""
        if self.exact:
            wait_for(self.device)
        now = time.perf_counter()
        if phase in self._now:
            self._now[phase] += now - self._since
        if phase == "rest":
            self.steps.append(self._now)
            self._now = dict.fromkeys(PHASES, 0.0)
        self._since = now


class TrainerSteps:
    """The real trainer, with the listeners of `lmzoo train`, stopped after so many steps and gone on with later.

    The progress is drawn in full, for a terminal that nobody sees.

    `folder` is made for its metrics. The model and the optimizer may be shared with others that take steps in turns.
    """

    def __init__(
        self,
        model: LanguageModel,
        optimizer: Optimizer,
        config: TrainConfig,
        precision: str,
        store: TokenStore,
        folder: Path,
    ) -> None:
        folder.mkdir()
        self.phases = Phases(model.device)
        self._terminal = open(os.devnull, "w")  # noqa: SIM115 (closed by `close`)
        self._progress = ProgressBar(Console(file=self._terminal, force_terminal=True, width=100))
        self._listeners: Sequence[Listener] = (MetricsWriter(folder, config.log_every), self._progress)
        self._left = 0
        self._trainer = Trainer(
            model=model,
            forward=model,
            optimizer=optimizer,
            batches=BatchStream(store.train.tokens, config.batch_size, model.config.context_length, config.seed),
            val=store.val,
            config=replace(config, steps=NEVER, eval_every=NEVER, checkpoint_every=NEVER),
            precision=precision,
            run=folder,
            state=TrainingState(),
            emit=self._emit,
            ranks=ALONE,
            mark=self.phases.mark,
        )
        tokens = config.batch_size * model.config.context_length
        flops = 3 * tokens * model.flops_per_token(model.config.context_length)
        size, kind = model.num_params(), model.device.type
        self._emit(StartEvent("", size, 0, NEVER, tokens, precision, kind, folder, flops))

    def __call__(self, steps: int) -> float:
        """Take one step in which it gets caches and memory for itself, and so many more; the seconds of these."""
        self._left = 1 + steps
        wait_for(self.phases.device)
        self.phases.start()
        with contextlib.suppress(_Enough):
            self._trainer.train()
        return sum(sum(step.values()) for step in self.phases.steps[-steps:])

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)
        if isinstance(event, StepEvent):
            self._left -= 1
            if not self._left:
                wait_for(self.phases.device)
                self.phases.mark("rest")
                raise _Enough

    def close(self) -> None:
        """Close the files of the listeners, and give the terminal back, which the progress holds."""
        for listener in self._listeners:
            listener(EndEvent())
        self._terminal.close()


class PlainSteps:
    """A step of somebody else, taken on given batches again and again."""

    def __init__(
        self,
        step: Step,
        batches: Sequence[tuple[Tensor, Tensor]],
        device: torch.device,
        *,
        keep_memory: bool = False,
    ) -> None:
        """`keep_memory`: with the allocator set as the trainer sets it."""
        self._step = step
        self._batches: Iterator[tuple[Tensor, Tensor]] = itertools.cycle(batches)
        self._device = device
        self._allocator = keep_freed_memory if keep_memory else contextlib.nullcontext

    def __call__(self, steps: int) -> float:
        """Take one step in which it gets caches and memory for itself, and so many more; the seconds of these."""
        with self._allocator():
            self._step(*next(self._batches))
            wait_for(self._device)
            began = time.perf_counter()
            for _ in range(steps):
                self._step(*next(self._batches))
            wait_for(self._device)
            return time.perf_counter() - began


def bare_step(model: LanguageModel, optimizer: Optimizer, config: TrainConfig, precision: str) -> Step:
    """What a step cannot do without: forward, backward, clipping, update."""
    forward = torch.compile(model) if config.compile else model
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
    """Random tokens in a file that is mapped into memory, as those of a text are."""
    dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
    np.random.default_rng(0).integers(vocab_size, size=n_tokens).astype(dtype).tofile(folder / "tokens.bin")
    tokens = np.memmap(folder / "tokens.bin", dtype=dtype, mode="r")
    train = TokenSplit("random", "train", tokens, n_tokens, n_tokens, n_tokens)
    return TokenStore("random", "", "", train, replace(train, split="val"))


def batches_of(store: TokenStore, config: TrainConfig, context_length: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """The trainer's first `count` batches."""
    stream = BatchStream(store.train.tokens, config.batch_size, context_length, config.seed)
    return [stream.batch(step) for step in range(count)]
