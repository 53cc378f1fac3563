"""Next-token selection for a batch: custom logits processors, then the sampling settings of each row.

Legend: B batch, V vocabulary, T tokens so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lmzoo.errors import InputError
from lmzoo.sampling import SamplingConfig, process, sample_with

# A logits processor: maps logits (B, V) and all tokens so far (B, T), the prompt included, to new logits (B, V). It
# must not change its arguments and may be called again for the same tokens. -inf bans a token.
Processor = Callable[[Tensor, Tensor], Tensor]
Settings = SamplingConfig | Sequence[SamplingConfig] | None  # one for all rows, or one per row; None is plain sampling


@dataclass(frozen=True)
class Choice:
    """The sampler of a batch: the rows of each config (None: all rows), and the logits processors before it."""

    groups: tuple[tuple[SamplingConfig, Tensor | None], ...]
    processors: tuple[Processor, ...] = ()

    @classmethod
    def make(cls, settings: Settings, batch_size: int, processors: Sequence[Processor] = ()) -> Choice:
        """Group the rows by config. Raises `InputError` unless there is one config, or one per row."""
        if not isinstance(processors, Iterable) or not all(map(callable, processors)):
            raise InputError(f"processors={processors!r} must be a sequence of functions")
        if settings is None or isinstance(settings, SamplingConfig):
            return cls(((settings or SamplingConfig(), None),), tuple(processors))
        if not isinstance(settings, Sequence) or not all(isinstance(each, SamplingConfig) for each in settings):
            raise InputError(f"config={settings!r} must be a SamplingConfig, or a sequence with one for each row")
        configs = list(settings)
        if len(configs) != batch_size:
            raise InputError(f"config has {len(configs)} entries: there must be one for each of the {batch_size} rows")
        different: list[SamplingConfig] = []
        for config in configs:
            if config not in different:
                different.append(config)
        rows = [[row for row, other in enumerate(configs) if other == config] for config in different]
        groups = tuple((config, torch.tensor(which)) for config, which in zip(different, rows, strict=True))
        return cls(groups, tuple(processors))

    @property
    def draws(self) -> bool:
        """True if any row needs a random number."""
        return any(config.temperature > 0 for config, _ in self.groups)

    def choose(self, logits_BV: Tensor, history_BT: Tensor, uniform_B: Tensor) -> Tensor:
        """Sample the next token of each row, (B,) int64; `uniform_B` as in `sample_with`."""
        token_B = torch.zeros(len(logits_BV), dtype=torch.long, device=logits_BV.device)
        for config, rows, chosen_BV in self._by_config(logits_BV, history_BT):
            token_B[rows] = sample_with(chosen_BV, config, history_BT[rows], uniform_B[rows])
        return token_B

    def probabilities(self, logits_BV: Tensor, history_BT: Tensor) -> Tensor:
        """The distribution that `choose` samples from: (B, V) float64."""
        probs_BV = torch.zeros_like(logits_BV, dtype=torch.float64)
        for config, rows, chosen_BV in self._by_config(logits_BV, history_BT):
            probs_BV[rows] = process(chosen_BV, config, history_BT[rows]).softmax(dim=-1)
        return probs_BV

    def _by_config(self, logits_BV: Tensor, history_BT: Tensor) -> list[tuple[SamplingConfig, Tensor | slice, Tensor]]:
        shape = logits_BV.shape
        for processor in self.processors:
            logits_BV = processor(logits_BV, history_BT)
            if logits_BV.shape != shape:
                raise InputError(
                    f"a logits processor gave logits {tuple(logits_BV.shape)}: they must be {tuple(shape)}"
                )
        if len(self.groups) > 1:  # checked here, so that an error names the row of the batch, not of its group
            logits_BV = process(logits_BV, SamplingConfig(), history_BT)
        return [
            (config, slice(None) if rows is None else rows, logits_BV if rows is None else logits_BV[rows])
            for config, rows in self.groups
        ]
