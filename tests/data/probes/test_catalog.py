"""Tests of all probes and all levels."""

from __future__ import annotations

import pytest
import torch

from lmzoo.data.probes import DIFFICULTIES, PROBES, Level, find_level, find_probe
from lmzoo.data.probes.ngrams import InContextNGrams
from lmzoo.errors import ConfigError
from lmzoo.losses import IGNORE_INDEX

LEVELS = [(f"{probe.name} {name}", level) for probe in PROBES.values() for name, level in probe.levels.items()]


@pytest.mark.parametrize("level", [level for _, level in LEVELS], ids=[name for name, _ in LEVELS])
def test_levels_draw_what_they_promise(level: Level) -> None:
    task = level.task
    assert level.tested >= 2 * level.trained
    for length in (level.trained, level.tested):
        idx, targets = task.draw(torch.Generator().manual_seed(0), 8, length)
        asked = targets[targets != IGNORE_INDEX]
        assert idx.shape == targets.shape == (8, length)
        assert idx.dtype == targets.dtype == torch.int64
        assert len(asked) >= 8
        assert min(int(idx.min()), int(asked.min())) >= 0
        assert max(int(idx.max()), int(asked.max())) < task.vocab_size
        if not isinstance(task, InContextNGrams):  # whose lines are measured
            assert 0 < task.chance(length) < task.solved(length) == 0.99


def test_probes_have_every_difficulty_and_their_paper() -> None:
    assert len(PROBES) == 10
    for name, probe in PROBES.items():
        assert (probe.name, tuple(probe.levels)) == (name, DIFFICULTIES)
        assert "arXiv" in probe.paper


def test_find_probe_suggests_a_name() -> None:
    assert find_probe("s5") is PROBES["s5"]
    with pytest.raises(ConfigError, match=r"probes='pairity' is not a probe; did you mean 'parity'\?"):
        find_probe("pairity")


def test_find_level_suggests_a_name() -> None:
    assert find_level(PROBES["s5"], "hard").trained == 32
    with pytest.raises(ConfigError, match=r"difficulty='hart' is not a difficulty; did you mean 'hard'\?"):
        find_level(PROBES["s5"], "hart")
