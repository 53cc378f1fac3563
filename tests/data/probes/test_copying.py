"""Tests of selective copying."""

from __future__ import annotations

import torch

from lmzoo.data.probes.copying import SelectiveCopying
from lmzoo.losses import IGNORE_INDEX


def test_selective_copying_asks_for_the_tokens_without_the_blanks() -> None:
    idx, targets = SelectiveCopying(5).draw(torch.Generator().manual_seed(0), 500, 25)
    places, seen = set(), set()
    for tokens, answers in zip(idx.tolist(), targets.tolist(), strict=True):
        kept = [token for token in tokens[:20] if token != 0]
        assert tokens[20:] == [15] * 5
        assert answers == [IGNORE_INDEX] * 20 + kept
        places |= {at for at, token in enumerate(tokens[:20]) if token}
        seen |= set(kept)
    assert places == set(range(20))
    assert seen == set(range(1, 15))
    assert SelectiveCopying(5).chance(25) == 1 / len(seen)
