"""Noise is added to the logits of a router in training, and traits does not say so.

Ours: what differs between training and evaluation must be declared.
"""

from __future__ import annotations

from dataclasses import replace

from lmzoo.model import Traits
from tests.museum.sound.noise_in_the_router import MODEL as Noisy

CAUGHT_BY = "train_mode"


class MODEL(Noisy):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, random_in_training=False)
