"""The base of all synthetic sources: a random text of single characters whose entropy rate is known.

All probabilities are ratios of integers, and all draws are made with integers from Philox, so a text is the same on
every machine. A draw takes the remainder of 64 random bits, which changes a probability by less than 1e-15.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

_BLOCK = 1 << 14


@dataclass(frozen=True)
class EntropyRate:
    """Entropy rate of a source in nats per character: `nats`, exact up to `error` on either side.

    No model has a lower expected loss per character. The loss on a finite text may be lower by chance.
    """

    nats: float
    error: float

    def __str__(self) -> str:
        bound = f"within {self.error:.0e}" if self.error >= 1e-9 else "exact up to rounding"
        return f"{self.nats:.6f} nats per character ({bound})"


class Source(ABC):
    """A source of text. `title` describes it in a phrase."""

    title: str

    @abstractmethod
    def text(self, seed: int, count: int) -> str:
        """Draw the first `count` characters of the text of a seed."""

    @abstractmethod
    def entropy_rate(self) -> EntropyRate:
        """Computes the entropy rate."""


class Weights:
    """A distribution over 0, 1, ..., given by positive integers to which its probabilities are proportional."""

    def __init__(self, weights: Sequence[int]) -> None:
        self.probabilities = np.array(weights, dtype=np.float64) / sum(weights)
        self.upto = list(accumulate(weights))

    def draw(self, number: int) -> int:
        """Returns a draw, made from 64 random bits."""
        return bisect(self.upto, number % self.upto[-1])

    @property
    def entropy(self) -> float:
        """The entropy in nats."""
        return -math.fsum(p * math.log(p) for p in self.probabilities if p)


def random_bits(first: int, second: int = 0) -> Iterator[int]:
    """Yields integers of 64 random bits without end, a stream of its own for each pair of numbers."""
    philox = np.random.Philox(key=np.array([first, second], dtype=np.uint64))
    while True:
        yield from philox.random_raw(_BLOCK).tolist()


def stationary(transition: np.ndarray) -> np.ndarray:
    """Returns the stationary distribution (n,) of a matrix (n, n) of transition probabilities."""
    n = len(transition)
    equations = transition.T - np.eye(n)
    equations[-1] = 1  # the sum, in the place of an equation that follows from the others
    return np.linalg.solve(equations, np.eye(n)[-1])
