"""The settings of a training run, with their defaults and rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from lmzoo.configs import is_number, require, require_at_most, require_between, require_positive, to_dict
from lmzoo.data.store import Documents
from lmzoo.distributed import Parallel

OptimizerName = Literal["adamw", "muon"]
Schedule = Literal["cosine", "linear", "wsd", "constant"]
Precision = Literal["auto", "float32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training settings of a run as the user gives them; None means: derived from the others by `resolved`.

    One step reads `batch_size * grad_accumulation` sequences of the model's `context_length` tokens, or with isolated
    documents about as many tokens in rows of their lengths.
    """

    steps: int = 2000  # optimizer steps
    batch_size: int = 16  # sequences in one forward pass, over all ranks
    grad_accumulation: int = 1  # forward passes in one step
    documents: Documents = "joined"  # "isolated": no prediction crosses the beginning of a document
    optimizer: OptimizerName = "adamw"  # "muon": Muon for the matrices, AdamW for all other parameters
    learning_rate: float = 1e-3  # peak of the schedule
    min_learning_rate: float | None = None  # end of the schedule; None: learning_rate / 10
    warmup_steps: int | None = None  # steps in which the learning rate rises; None: 5 % of the steps, at most 100
    schedule: Schedule = "cosine"  # course of the learning rate after the warm-up
    weight_decay: float = 0.1  # of all weights but biases and norms
    beta1: float = 0.9  # AdamW: memory of the mean gradient
    beta2: float = 0.99  # AdamW: memory of the squared gradient
    grad_clip: float = 1.0  # largest gradient norm, over all parameters; 0: no clipping
    log_every: int = 10  # steps between two lines of metrics.jsonl
    eval_every: int | None = None  # steps between two evaluations; None: a tenth of the run
    eval_tokens: int = 0  # number of targets to evaluate on, from the start of the validation split; 0: all
    checkpoint_every: int | None = None  # steps between two checkpoints; None: eval_every
    keep_checkpoints: int = 2  # number of newest checkpoints to keep, besides the best one
    seed: int = 1337  # of weights, batches and dropout
    precision: Precision = "auto"  # of the matrix products; auto: the faster one on this machine
    compile: bool = False  # torch.compile
    gradient_checkpointing: bool = False  # recompute activations in the backward pass: less memory, more time
    parallel: Parallel = "ddp"  # with several ranks, each holds the whole model ("ddp") or a shard of it ("fsdp")

    def __post_init__(self) -> None:
        require_positive(self, "steps", "batch_size", "grad_accumulation", "learning_rate", "log_every")
        require_positive(self, "keep_checkpoints")
        require_at_most(self, 10**9, "steps")
        require_at_most(self, 10**6, "batch_size", "grad_accumulation")
        for name in ("eval_every", "checkpoint_every"):
            if getattr(self, name) is not None:
                require_positive(self, name)
        require_between(self, "eval_tokens", 0, float("inf"), below_high=True)
        require_between(self, "seed", 0, 2**63 - 1)
        require_between(self, "weight_decay", 0, float("inf"), below_high=True)
        require_between(self, "grad_clip", 0, float("inf"), below_high=True)
        require_between(self, "beta1", 0, 1, below_high=True)
        require_between(self, "beta2", 0, 1, below_high=True)
        sharded, whole = self.parallel == "fsdp", self.optimizer == "muon"
        require(not (sharded and whole), "optimizer='muon' needs whole matrices, parallel='fsdp' cuts them: use 'ddp'")
        if self.min_learning_rate is not None:
            low, high = self.min_learning_rate, self.learning_rate
            require(
                is_number(low) and 0 <= low <= high, f"min_learning_rate={low!r} must be in [0, learning_rate={high}]"
            )
        if self.warmup_steps is not None:
            warmup = self.warmup_steps
            require(
                is_number(warmup) and 0 <= warmup <= self.steps,
                f"warmup_steps={warmup!r} must be in [0, steps={self.steps}]",
            )

    def resolved(self) -> ResolvedTrainConfig:
        """Return the same settings with a number for each None: these are stored in the run and used by the trainer."""
        eval_every = max(1, self.steps // 10) if self.eval_every is None else self.eval_every
        numbers: dict[str, Any] = {
            # In decimal figures: a tenth of 0.003 is 0.0003, which people read, not 0.00030000000000000003.
            "min_learning_rate": float(Decimal(repr(float(self.learning_rate))) / 10),
            "warmup_steps": min(100, self.steps // 20),
            "eval_every": eval_every,
            "checkpoint_every": eval_every,
        }
        given = {name: value for name, value in to_dict(self).items() if value is not None}
        return ResolvedTrainConfig(**numbers | given)


@dataclass(frozen=True, kw_only=True)
class ResolvedTrainConfig(TrainConfig):
    """A `TrainConfig` without None."""

    # field(): without it, each would inherit None as its default.
    min_learning_rate: float = field()
    warmup_steps: int = field()
    eval_every: int = field()
    checkpoint_every: int = field()
