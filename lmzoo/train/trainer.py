"""The training loop: one for every model, from top to bottom in `train`. Legend: B batch, T time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lmzoo.data.batches import Batches
from lmzoo.data.store import TokenSplit
from lmzoo.distributed.parallel import gradients_wait, whole
from lmzoo.distributed.ranks import Ranks
from lmzoo.errors import DivergedError
from lmzoo.losses import IGNORE_INDEX
from lmzoo.model import LanguageModel
from lmzoo.storage import checkpoints
from lmzoo.train.activation_checkpointing import activation_checkpointing
from lmzoo.train.checkpoint import TrainingState, save_checkpoint
from lmzoo.train.config import TrainConfig
from lmzoo.train.evaluate import evaluate
from lmzoo.train.events import CheckpointEvent, EvalEvent, Event, SavingEvent, StepEvent
from lmzoo.train.malloc import keep_freed_memory
from lmzoo.train.precision import autocast
from lmzoo.train.schedule import learning_rate
from lmzoo.train.signals import Interrupted, StopAsked, StopRequest, stop_request

WARM_UP = 3  # first steps of a process, that its median speed leaves out
RECENT = 20  # steps that the speed shown on the way is the mean of


def unmarked(phase: str) -> None:
    """Nobody wants to know when a phase of a step is over."""


@dataclass
class Trainer:
    """What a run is made of. `precision` is "float32" or "bf16"; `emit` hands an event to every listener.

    `mark` is told at the end of each phase of a step: data, forward, backward, clip, optimizer, rest; and of evaluation
    and saving after it.
    """

    model: LanguageModel
    forward: nn.Module  # what is called in its place, to train on several ranks
    optimizer: Optimizer
    batches: Batches
    val: TokenSplit
    config: TrainConfig
    precision: str
    run: Path
    state: TrainingState
    emit: Callable[[Event], None]
    ranks: Ranks
    mark: Callable[[str], None] = unmarked

    def __post_init__(self) -> None:
        self._parameters = list(self.model.parameters())  # looked up once: the walk is felt in a short step

    def train(self) -> None:
        """Train from `state` to the last step, with evaluations and checkpoints.

        Raises `DivergedError` for a loss, gradient or weight that is not finite: what is on disk then is from before.
        Raises `Interrupted` after a signal, when the step is done and saved; an evaluation that was due then is made
        up for when the run goes on.
        """
        config, state = self.config, self.state
        self.batches.restore(state.step * config.grad_accumulation, state.position)
        forward = torch.compile(self.forward) if config.compile else self.forward
        durations: list[float] = []
        self.model.train()
        checkpointing = activation_checkpointing(self.model, config.gradient_checkpointing)
        with keep_freed_memory(), checkpointing, stop_request(self.ranks) as stop:
            if state.step and self._evaluation_due and state.val_step != state.step:
                self._evaluate(stop, saved_too=True)
                if state.step == config.steps and state.val_step == state.step:
                    self._save()
                self._leave_if_asked(stop)
            while state.step < config.steps:
                began = time.perf_counter()
                first = state.step * config.grad_accumulation
                batches = [self.batches.batch(first + i) for i in range(config.grad_accumulation)]
                self.mark("data")
                rate = learning_rate(state.step, config)
                loss, grad_norm, tokens = self._update(forward, batches, rate)
                durations.append(time.perf_counter() - began)

                state.step += 1
                state.tokens += tokens
                state.seconds += durations[-1]
                recent = durations[-RECENT:]
                speed = tokens * len(recent) / sum(recent)
                self.emit(StepEvent(state.step, loss, rate, grad_norm, state.tokens, state.seconds, speed))
                self.mark("rest")
                stop.look()
                saving_now = state.step == config.steps or state.step % config.checkpoint_interval == 0
                if self._evaluation_due:
                    self._evaluate(stop, saved_too=saving_now)
                if saving_now or stop.signal_number is not None:
                    state.tokens_per_s = tokens / median(durations[WARM_UP:] or durations)
                    self._save()
                    stop.look()  # a save takes time, and one that a signal came in is the last
                self._leave_if_asked(stop)
                self.mark("evaluation and saving")

    def _update(
        self, forward: Callable[..., Any], batches: list[tuple[Tensor, Tensor]], rate: float
    ) -> tuple[float, float, int]:
        """One step of the optimizer. Returns the mean loss over all target tokens, the gradient's norm, their number.

        Each rank's rows of each batch take part with their share of all tokens, so that several ranks, and
        accumulation, equal one large batch.
        """
        device, config, ranks = self.model.device, self.config, self.ranks
        tokens = sum(int((targets_BT != IGNORE_INDEX).sum()) for _, targets_BT in batches)
        step_loss = torch.zeros((), device=device)
        for number, batch in enumerate(batches, 1):
            idx_BT, targets_BT = (ranks.rows(part).to(device) for part in batch)
            share = int((targets_BT != IGNORE_INDEX).sum()) / max(1, tokens)
            with gradients_wait(forward, for_more=number < len(batches)):
                with autocast(device, self.precision):
                    _, loss = forward(idx_BT, targets_BT, return_logits=False)
                self.mark("forward")
                (loss * (share * ranks.world_size)).backward()  # the gradients' mean over the ranks is taken
            step_loss += loss.detach() * share
            self.mark("backward")
        parameters = [p for p in self._parameters if p.grad is not None]
        # A weight that is not finite need not show in the loss: a row that no token met, a logit of minus infinity.
        norm, size = whole(_total_norms([p.grad for p in parameters if p.grad is not None], parameters))
        step_loss = ranks.add_up(step_loss)
        numbers = torch.stack((step_loss, norm, size)).tolist()  # the one time in a step that a GPU is waited for
        self._require_finite(*numbers)
        loss_now, norm_now, _ = numbers
        if 0 < config.grad_clip < norm_now:  # else clipping would take its time to multiply by one
            nn.utils.clip_grads_with_norm_(parameters, config.grad_clip, norm)
        self.mark("clip")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.mark("optimizer")
        return loss_now, norm_now, tokens

    def _require_finite(self, loss: float, norm: float, size: float) -> None:
        for name, value in (("loss", loss), ("gradient's norm", norm), ("weights' norm", size)):
            if value - value != 0:  # nan or inf
                raise DivergedError(self._diverged(self.state.step + 1, f"the {name} is {value}"))

    def _diverged(self, step: int, what: str) -> str:
        saved = next(iter(checkpoints.saved(self.run)), None)
        kept = f"the checkpoint of step {saved[0]} is kept" if saved else "nothing was saved before"
        clip = "" if self.config.grad_clip else ", or grad_clip=1.0,"
        return (
            f"step {step}: {what}; training stops, nothing of this is saved, and {kept}; the same settings would end "
            f"here again: try a lower learning_rate than {self.config.learning_rate}{clip} in another directory"
        )

    @property
    def _evaluation_due(self) -> bool:
        return self.state.step == self.config.steps or self.state.step % self.config.eval_interval == 0

    def _evaluate(self, stop: StopRequest, *, saved_too: bool) -> None:
        """Evaluate, unless a signal came before or comes meanwhile: then nothing of it is kept."""
        state, tokens = self.state, self.config.eval_tokens
        try:
            stop.check()
            result = evaluate(
                self.model,
                self.val,
                precision=self.precision,
                tokens=tokens,
                between=stop.check,
                ranks=self.ranks,
            )
        except StopAsked:
            return
        if not math.isfinite(result.loss):
            raise DivergedError(self._diverged(state.step, f"the validation loss is {result.loss}"))
        state.val_loss, state.val_bits_per_byte, state.val_step = result.loss, result.bits_per_byte, state.step
        if saved_too and (state.best_loss is None or result.loss < state.best_loss):
            state.best_loss, state.best_step = result.loss, state.step
        self.emit(EvalEvent(state.step, result.loss, result.bits_per_byte, state.tokens, state.seconds))

    def _save(self) -> None:
        self.emit(SavingEvent(self.state.step))
        self.state.position = self.batches.position(self.state.step * self.config.grad_accumulation)
        try:
            path = save_checkpoint(
                self.run,
                self.state,
                self.model,
                self.optimizer,
                self.config.keep_checkpoints,
                self.ranks,
                self.config.parallel,
            )
        except DivergedError as error:
            raise DivergedError(self._diverged(self.state.step, str(error))) from None
        self.emit(CheckpointEvent(self.state.step, path))

    def _leave_if_asked(self, stop: StopRequest) -> None:
        if stop.signal_number is not None:
            raise Interrupted(self.state.step, checkpoints.path_of(self.run, self.state.step), stop.signal_number)


@torch.no_grad()
def _total_norms(*of: Sequence[Tensor]) -> Tensor:
    """The norm of each list of tensors, all of one length, as if each were one vector: in one call, for it is felt."""
    norms = torch._foreach_norm([tensor for tensors in of for tensor in tensors])
    return torch.linalg.vector_norm(torch.stack(norms).view(len(of), -1), dim=1)
