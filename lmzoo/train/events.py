"""What the trainer tells its listeners: small frozen facts. A listener is anything that can be called with one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataEvent:
    """`done` of `total` characters or bytes of the text have been read for `what`; not sent for what is there."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class StartEvent:
    """Training begins or goes on: after `step` of `steps` steps.

    `flops_per_step` is what the model declares, three times for forward and backward; `precision` is "float32" or
    "bf16".
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
    """A step is done. `loss` is its mean in nats per token, before the update.

    `seconds` is all training time so far, `tokens_per_s` the speed of the latest steps.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    seconds: float
    tokens_per_s: float


@dataclass(frozen=True)
class EvalEvent:
    """The validation split was evaluated after `step`; `tokens` and `seconds` of training came before."""

    step: int
    loss: float
    bits_per_byte: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class SavingEvent:
    """The state after `step` is about to be saved: what a listener has written until now must be on disk first."""

    step: int


@dataclass(frozen=True)
class CheckpointEvent:
    """The state after `step` is on disk."""

    step: int
    path: Path


@dataclass(frozen=True)
class NoteEvent:
    """Something that a person should know, in one line."""

    message: str


@dataclass(frozen=True)
class EndEvent:
    """The run is over, or stops here, because it is done, was interrupted, or failed."""


Event = DataEvent | StartEvent | StepEvent | EvalEvent | SavingEvent | CheckpointEvent | NoteEvent | EndEvent
Listener = Callable[[Event], None]
