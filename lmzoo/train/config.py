"""What can be set of a training run, with its defaults and rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmzoo.configs import require, require_between, require_positive
from lmzoo.distributed import Parallel

OptimizerName = Literal["adamw", "muon"]
Schedule = Literal["cosine", "linear", "wsd", "constant"]
Precision = Literal["auto", "float32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One step sees `batch_size * grad_accumulation` windows of the model's `context_length` tokens.

    Where None is the default, the properties below say what stands for it.
    """

    steps: int = 2000
    batch_size: int = 16  # windows in one forward pass, those of all processes together
    grad_accumulation: int = 1  # forward passes in one step
    optimizer: OptimizerName = "adamw"  # "muon": Muon for the matrices, AdamW for all else
    learning_rate: float = 1e-3  # at its highest
    min_learning_rate: float | None = None  # at the end; a tenth of learning_rate
    warmup_steps: int | None = None  # 5 % of the steps, at most 100
    schedule: Schedule = "cosine"
    weight_decay: float = 0.1
    beta1: float = 0.9  # of AdamW, as beta2
    beta2: float = 0.99
    grad_clip: float = 1.0  # largest norm of the gradient of all parameters; 0 turns it off
    log_every: int = 10  # steps between two lines of the log
    eval_every: int | None = None  # steps between two evaluations; a tenth of the run
    eval_tokens: int | None = None  # only the first so many targets of the validation split; None: all
    checkpoint_every: int | None = None  # steps between two checkpoints; as eval_every
    keep_checkpoints: int = 2  # the newest so many stay, and the best
    seed: int = 1337
    precision: Precision = "auto"
    compile: bool = False  # torch.compile
    gradient_checkpointing: bool = False  # keep the blocks' inputs alone, for less memory and one more forward pass
    parallel: Parallel = "ddp"  # of several processes, each holds all of the model, or "fsdp" a shard of it

    def __post_init__(self) -> None:
        require_positive(self, "steps", "batch_size", "grad_accumulation", "learning_rate", "log_every")
        require_positive(self, "keep_checkpoints")
        for field in ("eval_every", "eval_tokens", "checkpoint_every"):
            if getattr(self, field) is not None:
                require_positive(self, field)
        require_between(self, "seed", 0, 2**63 - 1)
        require_between(self, "weight_decay", 0, float("inf"), below_high=True)
        require_between(self, "grad_clip", 0, float("inf"), below_high=True)
        require_between(self, "beta1", 0, 1, below_high=True)
        require_between(self, "beta2", 0, 1, below_high=True)
        sharded, whole = self.parallel == "fsdp", self.optimizer == "muon"
        require(not (sharded and whole), "optimizer='muon' needs whole matrices, parallel='fsdp' cuts them: use 'ddp'")
        if self.min_learning_rate is not None:
            low, high = self.min_learning_rate, self.learning_rate
            require(0 <= low <= high, f"min_learning_rate={low} must be in [0, learning_rate={high}]")
        if self.warmup_steps is not None:
            warmup = self.warmup_steps
            require(0 <= warmup <= self.steps, f"warmup_steps={warmup} must be in [0, steps={self.steps}]")

    @property
    def warmup(self) -> int:
        """Steps in which the learning rate rises."""
        return min(100, self.steps // 20) if self.warmup_steps is None else self.warmup_steps

    @property
    def final_learning_rate(self) -> float:
        """The learning rate that the schedule goes down to."""
        return self.learning_rate / 10 if self.min_learning_rate is None else self.min_learning_rate

    @property
    def eval_interval(self) -> int:
        """Steps between two evaluations; there is always one after the last step."""
        return self.eval_every or max(1, self.steps // 10)

    @property
    def checkpoint_interval(self) -> int:
        """Steps between two checkpoints; there is always one after the last step."""
        return self.checkpoint_every or self.eval_interval
