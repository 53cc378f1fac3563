"""The weights are buffers, so nothing can be trained, and traits does not declare it: a run would change nothing.

Ours: the other direction of `declared_untrainable_and_is_trained`.
"""

from __future__ import annotations

import torch

from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "gradients"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        for module in self.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, torch.empty_like(parameter).normal_(std=0.02))
