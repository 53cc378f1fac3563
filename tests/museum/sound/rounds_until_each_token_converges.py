"""Each token is refined until its own value no longer changes; rounds end when all have converged.

Adaptive computation (Graves 2016, arXiv 1603.08983) by a fixed point, as in Bai et al. 2019 (arXiv 1909.01377).
"""

from __future__ import annotations

from tests.museum.exhibits import rounds_until_the_batch_converges


class RefiningCell(rounds_until_the_batch_converges.RefiningCell):
    axes = (2,)


class MODEL(rounds_until_the_batch_converges.MODEL):
    cell_class = RefiningCell
