"""Values that one forward pass shares between its layers. Legend: T time, K head width."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lmzoo.errors import InputError
from lmzoo.layers.rope_scaling import RopeScaling
from lmzoo.ops.precision import wide_dtype
from lmzoo.ops.rope import rope_table, rotated_features


@dataclass(frozen=True)
class Rope:
    """Settings of rotary positions (Su et al. 2021, arXiv 2104.09864)."""

    theta: float = 10000.0  # the slowest pair turns once in 2 pi theta positions
    fraction: float = 1.0  # share of each head's features that is rotated: the first ones, an even number
    scaling: RopeScaling | None = None  # slows the rotation for texts longer than those of the training


@dataclass
class Context:
    """Shared values of one forward pass: created by `features` and passed to every layer.

    Positions count from the start of the sequence, also in a decoding step.
    """

    position: int  # of the first of the T tokens
    T: int
    device: torch.device
    dtype: torch.dtype  # of the model's weights
    carry: dict[str, Any] = field(default_factory=dict)  # values that a layer passes to later layers
    _tables: dict[tuple[Rope, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def positions_T(self) -> Tensor:
        """Returns the T positions as int64."""
        return torch.arange(self.position, self.position + self.T, device=self.device)

    def rope(self, rope: Rope, head_dim: int) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines (T, R/2) for the first R features of a head; computed once per forward pass.

        Raises `InputError` if the rotary frequencies of the text so far differ from those of the tokens before it: what
        a state holds was rotated by the latter (`lmzoo.layers.rope_scaling`).
        """
        key = (rope, head_dim)
        if key not in self._tables:
            rotated = rotated_features(head_dim, rope.fraction)
            dtype = wide_dtype(self.dtype)
            changes: dict[str, Any] = {}
            if rope.scaling is not None:
                scaling = self._scaling(rope.scaling)
                changes = {"rescale": scaling.scaled, "magnitude": scaling.magnitude}
            table = rope_table(self.position, self.T, rotated, rope.theta, device=self.device, dtype=dtype, **changes)
            self._tables[key] = table
        return self._tables[key]

    def _scaling(self, scaling: RopeScaling) -> RopeScaling:
        """Returns the rule for the length of the text."""
        found = scaling.at(self.position + self.T)
        if self.position and found is not scaling and found != scaling.at(self.position):
            raise InputError(
                f"a text of {self.position + self.T} tokens has other rotary frequencies than its first "
                f"{self.position}, which were read before: read it in one call (rope_scaling is "
                f"{type(scaling).__name__.lower()})"
            )
        return found
