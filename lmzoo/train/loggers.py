"""TensorBoard and Weights & Biases as listeners; both packages are extras, imported when a listener is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmzoo.errors import ConfigError
from lmzoo.train.events import EndEvent, EvalEvent, Event, StepEvent


class TensorBoardLogger:
    """Writes scalars to `folder`, for `tensorboard --logdir`. Needs `pip install lmzoo[tensorboard]`."""

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard") from error
        self._writer = SummaryWriter(str(folder))

    def __call__(self, event: Event) -> None:
        for name, value in _scalars(event).items():
            self._writer.add_scalar(name, value, getattr(event, "step", 0))
        if isinstance(event, EndEvent):
            self._writer.close()


class WandbLogger:
    """Sends scalars to Weights & Biases, with `config` beside them. Needs `pip install lmzoo[wandb]`."""

    def __init__(self, project: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb  # pyrefly: ignore[missing-import]
        except ImportError as error:
            raise _missing("wandb") from error
        self._run = wandb.init(project=project, config=dict(config))

    def __call__(self, event: Event) -> None:
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
        }
    if isinstance(event, EvalEvent):
        return {"val/loss": event.loss, "val/bits_per_byte": event.bits_per_byte}
    return {}


def _missing(package: str) -> ConfigError:
    return ConfigError(f"{package} is not installed: pip install 'lmzoo[{package}]'")
