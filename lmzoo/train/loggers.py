"""TensorBoard and Weights & Biases as listeners; both packages are extras, imported when a logger is made.

A logger opens its files when training starts and not before, so that a run that is refused writes no files.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from lmzoo.errors import ConfigError
from lmzoo.train.events import EndEvent, EvalEvent, Event, Listener, StartEvent, StepEvent


def make_logger(name: str, run: Path) -> Listener:
    """Make the logger `name` ("tensorboard" or "wandb") for the run directory `run`.

    Raises `ConfigError` if its package is not installed.
    """
    return {"tensorboard": TensorBoardLogger, "wandb": WandbLogger}[name](run)


class TensorBoardLogger:
    """Writes scalars to `tensorboard/` in the run, for `tensorboard --logdir`."""

    def __init__(self, run: Path) -> None:
        self._module = _import("tensorboard", "torch.utils.tensorboard")
        self._run = run
        self._writer: Any = None

    def __call__(self, event: Event) -> None:
        """Write the scalars of the event."""
        if isinstance(event, StartEvent):
            after = event.step + 1 if event.step else None  # hides what an interrupted run wrote after this step
            self._writer = self._module.SummaryWriter(str(self._run / "tensorboard"), purge_step=after)
        if self._writer is not None:
            for name, value in _scalars(event).items():
                self._writer.add_scalar(name, value, getattr(event, "step", 0))
            if isinstance(event, EndEvent):
                self._writer.close()


class WandbLogger:
    """Sends scalars to Weights & Biases, in a run that is named after the run directory."""

    def __init__(self, run: Path) -> None:
        self._module = _import("wandb", "wandb")
        self._name = run.name
        self._run: Any = None

    def __call__(self, event: Event) -> None:
        """Send the scalars of the event."""
        if isinstance(event, StartEvent):
            config = {"model": event.model, "params": event.params, "steps": event.steps}
            self._run = self._module.init(project="lmzoo", name=self._name, config=config)
        if self._run is not None:
            scalars = _scalars(event)
            if scalars:
                self._run.log(scalars, step=getattr(event, "step", 0))
            if isinstance(event, EndEvent):
                self._run.finish()


def _scalars(event: Event) -> dict[str, float]:
    if isinstance(event, StepEvent):
        return {
            "train/loss": event.loss,
            "train/learning_rate": event.learning_rate,
            "train/grad_norm": event.grad_norm,
            "train/tokens_per_s": event.tokens_per_s,
            **{f"train/aux.{name}": value for name, value in event.auxiliary.items()},
        }
    if isinstance(event, EvalEvent):
        return {"val/loss": event.loss, "val/bits_per_byte": event.bits_per_byte}
    return {}


def _import(package: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"logger={package!r} is not installed: pip install '.[{package}]' in the checkout") from None
