"""In a model that was built correctly, all layers were replaced by layers with a short window, unlike what it declares.

Ours: the class is right, so small models of it pass; only the caller's own model shows the fault.
"""

from __future__ import annotations

from tests.museum.base import MuseumConfig, Transformer
from tests.museum.exhibits.sees_less_than_all import ShortAttention

CAUGHT_BY = "own_receptive_field"


class NarrowAttention(ShortAttention):
    width = 8


CONFIG = MuseumConfig(vocab_size=50, d_model=48)
MODEL = Transformer(CONFIG)
for block in MODEL.blocks:
    block.attention = NarrowAttention(CONFIG, 0)
