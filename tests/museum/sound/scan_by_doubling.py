"""A linear recurrence over T tokens in log2(T) rounds, each of which combines pairs of twice the distance.

Hillis & Steele 1986; S5 (Smith et al. 2022, arXiv 2208.04933).
"""

from __future__ import annotations

from tests.museum.chunked import Doubling

MODEL = Doubling
