"""Decays from 0.99 to 0.9999 are a parameter that copies for decoding keep in float32.

Like the decay rates of Mamba (Gu & Dao 2023, arXiv 2312.00752), which must not be rounded either.
"""

from __future__ import annotations

from tests.museum.base import Recurrent
from tests.museum.exhibits import decays_rounded_in_copies


class SlowCell(decays_rounded_in_copies.SlowCell):
    keep_float32 = ("decay_D",)


class MODEL(Recurrent):
    cell_class = SlowCell
