"""Chooses how many cells of a comparison run at once, with how many threads each, and on which engine."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec

import torch

from lmzoo import configs
from lmzoo.compare.engine import Done, Job, execute, make_setup
from lmzoo.compare.jobs import Alone, Engine
from lmzoo.compare.measure import Measurer
from lmzoo.compare.processes import Processes, available_cores
from lmzoo.compare.ray_engine import RayEngine
from lmzoo.errors import ConfigError
from lmzoo.hardware import default_device

ENGINES = ("processes", "ray")
PER_CORE = 4  # workers for each CPU core; more only take memory


def choose_workers(workers: int | None, engine: str, *, runs: int, one_each: bool) -> int:
    """Return the number of workers for `runs` runs or more: as given, or chosen if it is None.

    A comparison with one run of each model (`one_each`) is made in this process, as is one on a GPU; any other uses all
    CPU cores. Raises `ConfigError`.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine={engine!r} must be 'processes' or 'ray'{configs.suggest(engine, ENGINES)}")
    if engine == "ray" and find_spec("ray") is None:
        raise ConfigError("engine='ray' needs the package ray: pip install 'lmzoo[ray]'")
    cores = len(available_cores())
    if workers is None:
        here = engine == "processes" and (one_each or default_device().type == "cuda")
        return 1 if here else min(cores, runs)
    most = PER_CORE * cores if engine == "processes" else 10_000
    if type(workers) is not int or not 1 <= workers <= most:
        limit = f", {PER_CORE} for each CPU core" if engine == "processes" else ""
        raise ConfigError(f"workers={workers!r} must be an integer in [1, {most}]{limit}")
    return workers


@contextmanager
def limited_threads(workers: int) -> Generator[int]:
    """Let torch use, in this process too, as many threads as each of the workers has cores; yields their number."""
    before = torch.get_num_threads()
    threads = before if workers == 1 else max(1, min(before, len(available_cores()) // workers))
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


def make_engine(name: str, measurer: Measurer, workers: int, threads: int) -> Engine[Job, Done]:
    """Return the engine: this process for one worker, unless it is a worker of Ray."""
    if name == "ray":
        return RayEngine(measurer, workers, threads)
    if workers == 1:
        return Alone(partial(execute, measurer))
    return Processes(make_setup(measurer, threads), workers)
