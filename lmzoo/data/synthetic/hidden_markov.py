"""A hidden Markov model. Legend: N hidden states, K characters, W words of characters."""

from __future__ import annotations

from itertools import islice

import numpy as np

from lmzoo.data.synthetic.source import EntropyRate, Source, Weights, random_bits, stationary

SYMBOLS = "abcd"
WORD = 9  # characters whose conditional entropies bound the rate
_MOVES = ((12, 3, 1), (1, 12, 3), (3, 1, 12))
_EMITS = ((13, 1, 1, 1), (1, 13, 1, 1), (1, 1, 7, 7))


class HiddenMarkov(Source):
    """A Markov chain of three states that cannot be seen; each emits a character of its own distribution.

    Its text is a Markov chain of no order. The entropy rate lies between the entropies of the last of `WORD` characters
    given those before it, with and without the first hidden state (Cover and Thomas, theorem 4.5.1). The two are less
    than 2e-7 nats apart.
    """

    title = f"a hidden Markov model of {len(_MOVES)} states over {len(SYMBOLS)} characters"

    def __init__(self) -> None:
        self.moves, self.emits = ([Weights(each) for each in table] for table in (_MOVES, _EMITS))

    def text(self, seed: int, count: int) -> str:
        bits, state = random_bits(seed), 0
        found: list[str] = []
        for for_emission, for_move in islice(zip(bits, bits, strict=True), count):
            found.append(SYMBOLS[self.emits[state].draw(for_emission)])
            state = self.moves[state].draw(for_move)
        return "".join(found)

    def entropy_rate(self) -> EntropyRate:
        low, high = self.bounds(WORD)
        return EntropyRate((low + high) / 2, (high - low) / 2)

    def bounds(self, length: int) -> tuple[float, float]:
        """Computes the lower and the upper bound from all words of `length` characters."""
        move_NN, emit_NK = (np.stack([w.probabilities for w in table]) for table in (self.moves, self.emits))
        step_KNN = emit_NK.T[:, :, None] * move_NN  # emit a character, then move
        # Probability of a first state, a word and the state after it.
        joint_WNN = np.diag(stationary(move_NN))[None]
        for _ in range(length - 1):
            joint_WNN = np.einsum("wij,kjl->wkil", joint_WNN, step_KNN).reshape(-1, *move_NN.shape)
        next_WNK = joint_WNN @ emit_NK
        return _entropy_of_last(next_WNK), _entropy_of_last(next_WNK.sum(axis=1))


def _entropy_of_last(joint: np.ndarray) -> float:
    """Returns the entropy of the last axis given all others, from the joint probabilities, which are positive."""
    return float(-(joint * np.log(joint / joint.sum(axis=-1, keepdims=True))).sum())
