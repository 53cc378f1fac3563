"""Events of a run: small frozen records. A listener is a callback that is called with each event.

`Trainer.train` yields the events of its loop (`TrainingEvent`); a run passes them, and its own, to its listeners.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class DataEvent:
    """`done` of `total` characters or bytes of the text have been read for the purpose `what`."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class StartEvent:
    """Training begins or continues, after `step` of `steps` steps.

    `tokens_per_step` are the positions of a step; with isolated documents some of them are padding.
    `flops_per_step` is three times the model's declared FLOPs of a forward pass, for forward and backward; `precision`
    is "float32" or "bf16".
    """

    model: str
    params: int
    step: int
    steps: int
    tokens_per_step: int
    precision: str
    device: str
    path: Path
    flops_per_step: float


@dataclass(frozen=True)
class StepEvent:
    """A step is done. `loss` is its mean loss in nats per token, before the update.

    `seconds` is the training time of all steps so far, `tokens_per_s` the speed of the latest steps, `phases` the
    seconds of each phase of this step, `auxiliary` the auxiliary losses of the model by name.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    seconds: float
    tokens_per_s: float
    phases: Mapping[str, float] = field(default_factory=dict)
    auxiliary: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluatingEvent:
    """The evaluation after `step` goes on: `done` of `total` targets of the validation split."""

    step: int
    done: int
    total: int


@dataclass(frozen=True)
class EvalEvent:
    """The validation split was evaluated after `step`; `tokens` and `seconds` are of the training before it.

    `activations` are the statistics of `train.activations`, and `grad_norms`: the gradient norms of the step by role.
    """

    step: int
    loss: float
    bits_per_byte: float
    tokens: int
    seconds: float
    activations: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SavingEvent:
    """The state after `step` is about to be saved: a listener that writes a file must flush it to the disk now."""

    step: int


@dataclass(frozen=True)
class CheckpointEvent:
    """The state after `step` is on disk."""

    step: int
    path: Path


@dataclass(frozen=True)
class NoteEvent:
    """A message of one line for the user."""

    message: str


@dataclass(frozen=True)
class CellState:
    """A run of a comparison: its name, and the steps and the loss so far, which is the validation loss when done.

    A run that successive halving does not continue is "stopped".
    """

    label: str
    state: Literal["waiting", "running", "done", "stopped", "diverged", "failed"] = "waiting"
    step: int = 0
    steps: int = 0
    loss: float | None = None


@dataclass(frozen=True)
class CellsEvent:
    """The states of all runs of a comparison that trains several at once, and the seconds left, if known."""

    cells: Sequence[CellState]
    seconds_left: float | None = None


@dataclass(frozen=True)
class EndEvent:
    """The run has ended: it is done, was interrupted, or failed."""


TrainingEvent = StepEvent | EvaluatingEvent | EvalEvent | SavingEvent | CheckpointEvent
Event = TrainingEvent | DataEvent | StartEvent | NoteEvent | CellsEvent | EndEvent
Listener = Callable[[Event], None]


def fan_out(listeners: Sequence[Listener]) -> Listener:
    """Combine `listeners` into one, which calls them in their order."""

    def send(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return send
