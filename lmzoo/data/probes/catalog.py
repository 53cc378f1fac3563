"""The probes by name, each with three difficulty levels."""

from __future__ import annotations

from lmzoo import configs
from lmzoo.data.probes.copying import SelectiveCopying
from lmzoo.data.probes.dyck import Dyck
from lmzoo.data.probes.groups import CyclicGroup, SymmetricGroup
from lmzoo.data.probes.ngrams import InContextNGrams
from lmzoo.data.probes.recall import AssociativeRecall, InductionHeads, Needle
from lmzoo.data.probes.task import Level, Probe
from lmzoo.errors import ConfigError

DIFFICULTIES = ("easy", "medium", "hard")
_STATE = "Merrill et al. 2024, arXiv 2404.08819"


def _probe(name: str, skill: str, paper: str, *levels: Level) -> Probe:
    return Probe(name, skill, paper, dict(zip(DIFFICULTIES, levels, strict=True)))


_ALL = (
    _probe(
        "mqar",
        "looks up several values by their keys",
        "Arora et al. 2023, arXiv 2312.04927",
        Level(AssociativeRecall(64, 4), 32, 64),
        Level(AssociativeRecall(256, 16), 64, 128),
        Level(AssociativeRecall(8192, 64), 256, 512),
    ),
    _probe(
        "induction",
        "repeats what followed a special token",
        "Dao et al. 2022, arXiv 2212.14052; Gu and Dao 2023, arXiv 2312.00752",
        Level(InductionHeads(16), 32, 128),
        Level(InductionHeads(16), 64, 256),
        Level(InductionHeads(16), 256, 1024),
    ),
    _probe(
        "copying",
        "keeps marked tokens in order, and no others",
        "Gu and Dao 2023, arXiv 2312.00752",
        Level(SelectiveCopying(4), 32, 64),
        Level(SelectiveCopying(8), 64, 128),
        Level(SelectiveCopying(16), 256, 512),
    ),
    _probe(
        "ngrams",
        "learns a Markov chain from the context",
        "Edelman et al. 2024, arXiv 2402.11004",
        Level(InContextNGrams(3, 1), 64, 128),
        Level(InContextNGrams(8, 1), 128, 256),
        Level(InContextNGrams(3, 2), 128, 256),
    ),
    _probe(
        "parity",
        "counts the ones modulo 2",
        f"Grazzi et al. 2024, arXiv 2411.12537; {_STATE}",
        Level(CyclicGroup(2), 16, 64),
        Level(CyclicGroup(2), 32, 128),
        Level(CyclicGroup(2), 64, 256),
    ),
    _probe(
        "addition",
        "adds modulo a number",
        f"Grazzi et al. 2024, arXiv 2411.12537; {_STATE}",
        Level(CyclicGroup(3), 16, 64),
        Level(CyclicGroup(5), 32, 128),
        Level(CyclicGroup(10), 64, 256),
    ),
    _probe(
        "s3",
        "composes permutations of three objects",
        _STATE,
        Level(SymmetricGroup(3), 8, 32),
        Level(SymmetricGroup(3), 16, 64),
        Level(SymmetricGroup(3), 32, 128),
    ),
    _probe(
        "s5",
        "composes permutations of five objects",
        _STATE,
        Level(SymmetricGroup(5), 8, 32),
        Level(SymmetricGroup(5), 16, 64),
        Level(SymmetricGroup(5), 32, 128),
    ),
    _probe(
        "dyck",
        "closes nested brackets",
        "Hewitt et al. 2020, arXiv 2010.07515",
        Level(Dyck(2, 3), 32, 128),
        Level(Dyck(8, 5), 64, 256),
        Level(Dyck(32, 10), 128, 512),
    ),
    _probe(
        "needle",
        "finds one fact in a long text",
        "Hsieh et al. 2024, arXiv 2404.06654",
        Level(Needle(1), 64, 256),
        Level(Needle(4), 128, 512),
        Level(Needle(16), 256, 1024),
    ),
)
PROBES = {probe.name: probe for probe in _ALL}


def find_probe(name: str) -> Probe:
    """Returns the probe of this name. Raises `ConfigError` with the most similar name."""
    if name not in PROBES:
        raise ConfigError(f"probes={name!r} is not a probe{configs.suggest(name, PROBES)}")
    return PROBES[name]


def find_level(probe: Probe, difficulty: str) -> Level:
    """Returns the level of a difficulty. Raises `ConfigError` with the most similar name."""
    if difficulty not in probe.levels:
        raise ConfigError(f"difficulty={difficulty!r} is not a difficulty{configs.suggest(difficulty, probe.levels)}")
    return probe.levels[difficulty]
