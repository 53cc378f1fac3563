"""The optimizer of the checks. torch's own imports torch's compiler, which takes seconds."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class Adam:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980), with its default decay rates."""

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float = 0.01) -> None:
        self._learning_rate = learning_rate
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._mean = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._square = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Changes the parameters by their gradients."""
        self._steps += 1
        for parameter, mean, square in zip(self._parameters, self._mean, self._square, strict=True):
            if parameter.grad is not None:
                mean.lerp_(parameter.grad, 1 - 0.9)
                square.lerp_(parameter.grad.square(), 1 - 0.999)
                mean_hat, square_hat = mean / (1 - 0.9**self._steps), square / (1 - 0.999**self._steps)
                parameter.sub_(self._learning_rate * mean_hat / (square_hat.sqrt() + 1e-8))
