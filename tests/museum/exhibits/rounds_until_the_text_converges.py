"""A value is refined until it no longer changes anywhere in the text: later tokens decide how often.

Ours: for most random weights every text takes as many rounds as are allowed, and no token seems to matter.
"""

from __future__ import annotations

from tests.museum.exhibits import rounds_until_the_batch_converges

CAUGHT_BY = "causality"


class RefiningCell(rounds_until_the_batch_converges.RefiningCell):
    axes = (1, 2)


class MODEL(rounds_until_the_batch_converges.MODEL):
    cell_class = RefiningCell
