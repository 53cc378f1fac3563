"""Puts NaN or infinity into loss, gradient, weights or optimizer state of a run, by hooks of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from lmzoo.model import LanguageModel

KINDS = ("loss", "gradient", "weight", "weight after the step", "optimizer")


@dataclass
class Poison:
    """Puts `value` into numbers of `kind` in `step`; each step has `per_step` forward passes. Lasts for the process."""

    kind: str
    step: int
    value: float
    per_step: int
    model: LanguageModel | None = None
    passes: int = 0
    steps: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)  # copies from the beginning of the step

    def spread(self) -> None:
        """Install the hooks."""
        register_module_forward_pre_hook(self._before)
        register_module_forward_hook(self._after)
        register_optimizer_step_post_hook(self._stepped)

    def unchanged(self) -> bool:
        """Return True if no weight has changed since the step began."""
        model = self.model
        return model is not None and all(
            torch.equal(value.nan_to_num(7.0), self.weights[name].nan_to_num(7.0))
            for name, value in model.named_parameters()
        )

    @property
    def _now(self) -> bool:
        return self.passes == (self.step - 1) * self.per_step + 1

    def _before(self, module: nn.Module, arguments: Any) -> None:
        if not (isinstance(module, LanguageModel) and module.training):
            return
        self.model = module
        self.passes += 1
        if self._now:
            if self.kind == "weight":
                self._spoil(self._weight(module).data)
            self.weights = {name: value.detach().clone() for name, value in module.named_parameters()}

    def _after(self, module: nn.Module, arguments: Any, output: Any) -> Any:
        if not (isinstance(module, LanguageModel) and module.training and self._now):
            return output
        if self.kind == "loss":
            return output._replace(loss=output.loss * self.value)
        if self.kind == "gradient":
            parameter = list(module.parameters())[-1]

            def spoil(grad: Tensor) -> Tensor:
                handle.remove()
                return grad * self.value

            handle = parameter.register_hook(spoil)
        return output

    def _stepped(self, optimizer: Any, arguments: Any, options: Any) -> None:
        self.steps += 1
        if self.steps != self.step or self.model is None:
            return
        if self.kind == "weight after the step":
            self._spoil(next(self.model.parameters()).data)
        elif self.kind == "optimizer":
            state = optimizer.state[next(self.model.parameters())]
            self._spoil(next(value for value in state.values() if value.ndim))

    def _weight(self, module: nn.Module) -> Tensor:
        """Return the first parameter, whose first row no token may use, or the last, which all tokens use."""
        return list(module.parameters())[-1 if self.step % 2 else 0]

    def _spoil(self, tensor: Tensor) -> None:
        tensor.view(-1)[0] = self.value
