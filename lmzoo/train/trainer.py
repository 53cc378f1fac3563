"""The training loop, one for all models; `Trainer.train` reads from top to bottom. Legend: B batch, T time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lmzoo import bounds, losses
from lmzoo.compiling import compiled
from lmzoo.data.batches import Batches
from lmzoo.data.store import TokenSplit
from lmzoo.distributed.parallel import full_tensor, no_sync
from lmzoo.distributed.ranks import Ranks
from lmzoo.errors import DivergedError
from lmzoo.losses import IGNORE_INDEX
from lmzoo.model import LanguageModel
from lmzoo.storage import checkpoints
from lmzoo.train.activation_checkpointing import activation_checkpointing
from lmzoo.train.activations import activation_statistics
from lmzoo.train.checkpoint import TrainingState, save_checkpoint
from lmzoo.train.config import ResolvedTrainConfig
from lmzoo.train.distill import Objective, cross_entropy
from lmzoo.train.evaluate import EvalResult, evaluation
from lmzoo.train.events import CheckpointEvent, EvalEvent, EvaluatingEvent, SavingEvent, StepEvent, TrainingEvent
from lmzoo.train.malloc import keep_freed_memory
from lmzoo.train.phases import PhaseClock
from lmzoo.train.precision import autocast
from lmzoo.train.schedule import learning_rate
from lmzoo.train.signals import Interrupted, StopAsked, StopRequest, stop_request

WARM_UP = 3  # number of first steps of a process that do not count in its median speed
_FIT_BYTES = 64  # of memory that fitting takes at the least for each token
RECENT = 20  # number of latest steps over which the speed in a `StepEvent` is averaged


# Evaluates a model on a split in a precision, in steps as `evaluation` has them.
LastEvaluation = Callable[[LanguageModel, TokenSplit, str], Generator[tuple[int, int], None, EvalResult]]


class Step(NamedTuple):
    """Numbers of one optimizer step."""

    loss: float  # mean over all targets, in nats per token
    grad_norm: float  # before clipping
    tokens: int  # targets
    auxiliary: dict[str, float]  # auxiliary losses by name, each the mean over the step's targets


@dataclass
class Trainer:
    """Holds the parts of a run and runs the loop over its steps. `precision` is "float32" or "bf16"."""

    model: LanguageModel
    parallel_model: nn.Module  # `model`, or its DDP wrapper: training steps call this one
    optimizer: Optimizer
    batches: Batches
    val: TokenSplit | None  # None: no evaluation
    config: ResolvedTrainConfig
    precision: str
    run: Path
    state: TrainingState
    ranks: Ranks
    synchronize: bool = False  # wait for the GPU after each phase of a step, to measure the phases exactly
    keep_freed_memory: bool = False  # change the allocator of the whole process while training, see train/malloc.py
    objective: Objective = cross_entropy  # its value is the reported loss; a teacher adds auxiliary losses
    last_evaluation: LastEvaluation | None = None  # in the place of `evaluation`, after the last step
    until: int | None = None  # save and stop after this step; the schedule, and the last evaluation, are of all steps

    def __post_init__(self) -> None:
        self._parameters = list(self.model.parameters())  # walking all modules in each step slows a small model

    def train(self) -> Generator[TrainingEvent]:
        """Train from `state` to the last step, with evaluations and checkpoints, and yield an event for each.

        A model without parameters (`traits.trainable` is False) is fitted instead, evaluated and saved once.

        The caller may leave the loop over the events at any time; `state` then holds the steps done so far.

        Raises `DivergedError` for a loss, gradient or weight that is not finite, before it is saved. Raises
        `Interrupted` after a signal, when the current step is done and saved; an evaluation that was due at this step
        is made when the run is resumed.
        """
        config, state = self.config, self.state
        last = config.steps if self.until is None else self.until
        fits = not self.model.traits.trainable and state.step < config.steps
        if fits:  # reads all sequences again, also to prolong a run
            state.step, state.position = 0, None
        self.batches.restore(state.step * config.grad_accumulation, state.position)
        forward = compiled(self.parallel_model) if config.compile else self.parallel_model
        durations: list[float] = []
        targets: list[int] = []  # of each step: with isolated documents they vary
        self.model.train()
        checkpointing = activation_checkpointing(self.model, config.gradient_checkpointing)
        with keep_freed_memory(self.keep_freed_memory), checkpointing, stop_request(self.ranks) as stop:
            if state.step and self._evaluation_due and state.val_step != state.step:
                yield from self._evaluate(stop, saved_too=True)
                if state.step == config.steps and state.val_step == state.step:
                    yield from self._save()
                self._leave_if_asked(stop)
            if fits:
                self._fit()
                yield from self._evaluate(stop, saved_too=True)
                yield from self._save()
                self._leave_if_asked(stop)
            while state.step < last:
                clock = PhaseClock(self.model.device, synchronize=self.synchronize)
                first = state.step * config.grad_accumulation
                batches = [self.batches.batch(first + i) for i in range(config.grad_accumulation)]
                clock.end("data")
                rate = learning_rate(state.step, config)
                step = self._update(forward, batches, rate, clock)
                durations.append(sum(clock.seconds.values()))
                targets.append(step.tokens)

                state.step += 1
                state.tokens += step.tokens
                state.seconds += durations[-1]
                speed = sum(targets[-RECENT:]) / sum(durations[-RECENT:])
                yield StepEvent(
                    state.step,
                    step.loss,
                    rate,
                    step.grad_norm,
                    state.tokens,
                    state.seconds,
                    speed,
                    phases=clock.seconds,
                    auxiliary=step.auxiliary,
                )
                stop.look()
                saving_now = state.step == last or state.step % config.checkpoint_every == 0
                if self._evaluation_due:
                    yield from self._evaluate(stop, saved_too=saving_now)
                if saving_now or stop.signal_number is not None:
                    state.tokens_per_s = _median_speed(targets, durations)
                    yield from self._save()
                    stop.look()  # a signal during the save ends the run here, without a further step or save
                self._leave_if_asked(stop)

    def _fit(self) -> None:
        """Fit a model without parameters to what all steps would read, each sequence once; then no step is left."""
        config, state, began = self.config, self.state, time.perf_counter()
        sequences = config.steps * config.grad_accumulation * config.batch_size
        tokens_BT = torch.from_numpy(self.batches.first_windows(sequences).astype("int64"))
        bounds.require_memory(f"fitting {tokens_BT.numel():,} tokens at once", _FIT_BYTES * tokens_BT.numel())
        self.model.fit(tokens_BT.to(self.model.device))
        state.step, state.tokens = config.steps, int((tokens_BT[:, 1:] != IGNORE_INDEX).sum())
        seconds = time.perf_counter() - began
        state.seconds += seconds
        state.tokens_per_s = state.tokens / seconds

    def _update(
        self, forward: Callable[..., Any], batches: list[tuple[Tensor, Tensor]], rate: float, clock: PhaseClock
    ) -> Step:
        """Make one optimizer step.

        The loss of a rank's rows of a batch is weighted by their share of all targets, so that several ranks and
        gradient accumulation compute the same step as one large batch.
        """
        device, config, ranks = self.model.device, self.config, self.ranks
        tokens = sum(int((targets_BT != IGNORE_INDEX).sum()) for _, targets_BT in batches)
        step_loss = torch.zeros((), device=device)
        auxiliary: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, 1):
            idx_BT, targets_BT = (ranks.rows(part).to(device) for part in batch)
            share = int((targets_BT != IGNORE_INDEX).sum()) / max(1, tokens)
            with no_sync(forward, enabled=number < len(batches)):
                with losses.reported() as named, autocast(device, self.precision):
                    loss = self.objective(forward, idx_BT, targets_BT, self.state.step)
                clock.end("forward")
                (loss * (share * ranks.world_size)).backward()  # DDP and FSDP take the mean over the ranks
            step_loss += loss.detach() * share
            for name, value in named.items():
                auxiliary[name] = auxiliary.get(name, 0.0) + value * share
            clock.end("backward")
        parameters = [p for p in self._parameters if p.grad is not None]
        # The loss can be finite although a weight is not, e.g. an embedding that no token used, or a logit of -inf.
        norm, size = full_tensor(_total_norms([p.grad for p in parameters if p.grad is not None], parameters))
        sums = ranks.all_reduce_sum(torch.stack((step_loss, *auxiliary.values())))
        loss_now, *auxiliary_now, norm_now, size_now = torch.cat((sums, norm[None], size[None])).tolist()
        self._require_finite(loss_now, norm_now, size_now)
        if self._is_evaluated(self.state.step + 1):
            self.state.grad_norms = self._grad_norms()
        if 0 < config.grad_clip < norm_now:  # torch would multiply smaller gradients by one
            nn.utils.clip_grads_with_norm_(parameters, config.grad_clip, norm)
        clock.end("clip")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        clock.end("optimizer")
        return Step(loss_now, norm_now, tokens, dict(zip(auxiliary, auxiliary_now, strict=True)))

    def _require_finite(self, loss: float, norm: float, size: float) -> None:
        for name, value in (("loss", loss), ("gradient norm", norm), ("weight norm", size)):
            if value - value != 0:  # nan or inf
                raise DivergedError(self._diverged(self.state.step + 1, f"the {name} is {value}"))

    def _diverged(self, step: int, what: str) -> str:
        saved = next(iter(checkpoints.saved(self.run)), None)
        kept = f"the checkpoint of step {saved[0]} is kept" if saved else "nothing was saved before"
        clip = "" if self.config.grad_clip else ", or grad_clip=1.0,"
        return (
            f"step {step}: {what}; training stops, this step is not saved, and {kept}; resuming with the same settings "
            f"will diverge again: try a lower learning_rate than {self.config.learning_rate}{clip} in another directory"
        )

    def _grad_norms(self) -> dict[str, float]:
        """Gradient norm of the parameters of each role, before clipping."""
        found: dict[str, float] = {}
        for group in self.optimizer.param_groups:
            grads = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
            if grads:
                found[group["role"]] = full_tensor(_total_norms(grads)).item()
        return found

    def _is_evaluated(self, step: int) -> bool:
        return self.val is not None and (step == self.config.steps or step % self.config.eval_every == 0)

    @property
    def _evaluation_due(self) -> bool:
        step = self.state.step
        postponed = self.until is not None and step == self.config.steps  # to a call without `until`
        return self._is_evaluated(step) and not postponed

    def _activations(self) -> dict[str, Any]:
        """Statistics of the model at an evaluation (`train.activations`), and the gradient norms of the step."""
        assert self.val is not None
        sharded = self.ranks.world_size > 1 and self.config.parallel == "fsdp"
        found = activation_statistics(self.model, self.val.tokens, precision=self.precision, decodes=not sharded)
        return found | ({"grad_norms": self.state.grad_norms} if self.state.grad_norms else {})

    def _evaluate(self, stop: StopRequest, *, saved_too: bool) -> Generator[TrainingEvent]:
        """Evaluate; if a signal comes before the end, discard the result."""
        assert self.val is not None
        state, began = self.state, time.perf_counter()
        if self.last_evaluation is not None and state.step == self.config.steps:
            steps = self.last_evaluation(self.model, self.val, self.precision)
        else:
            tokens = self.config.eval_tokens or None
            steps = evaluation(self.model, self.val, precision=self.precision, tokens=tokens, ranks=self.ranks)
        try:
            with closing(steps):
                result = yield from self._evaluating(steps, stop)
            activations = self._activations()
        except StopAsked:
            return
        finally:
            state.eval_seconds += time.perf_counter() - began
        if not math.isfinite(result.loss):
            raise DivergedError(self._diverged(state.step, f"the validation loss is {result.loss}"))
        state.val_loss, state.val_bits_per_byte, state.val_step = result.loss, result.bits_per_byte, state.step
        if saved_too and (state.best_loss is None or result.loss < state.best_loss):
            state.best_loss, state.best_step = result.loss, state.step
        yield EvalEvent(state.step, result.loss, result.bits_per_byte, state.tokens, state.seconds, activations)

    def _evaluating(
        self, steps: Generator[tuple[int, int], None, EvalResult], stop: StopRequest
    ) -> Generator[TrainingEvent, None, EvalResult]:
        """Yield an event for each of `steps`, and return their result. Raises `StopAsked` if a signal comes."""
        while True:
            stop.check()
            try:
                done, total = next(steps)
            except StopIteration as end:
                return end.value
            yield EvaluatingEvent(self.state.step, done, total)

    def _save(self) -> Generator[TrainingEvent]:
        yield SavingEvent(self.state.step)
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
        yield CheckpointEvent(self.state.step, path)

    def _leave_if_asked(self, stop: StopRequest) -> None:
        if stop.signal_number is not None:
            raise Interrupted(self.state.step, checkpoints.path_of(self.run, self.state.step), stop.signal_number)


def _median_speed(targets: Sequence[int], durations: Sequence[float]) -> float:
    """Tokens per second of the median step, without the first steps of the process if there are others."""
    first = WARM_UP if len(durations) > WARM_UP else 0
    return median(count / seconds for count, seconds in zip(targets[first:], durations[first:], strict=True))


@torch.no_grad()
def _total_norms(*of: Sequence[Tensor]) -> Tensor:
    """Global L2 norm of each list of tensors; one call for all lists, which must have the same length."""
    norms = torch._foreach_norm([tensor for tensors in of for tensor in tensors])
    return torch.linalg.vector_norm(torch.stack(norms).view(len(of), -1), dim=1)
