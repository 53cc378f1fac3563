"""Fixtures for all tests: one thread, a temporary cache folder, a small text, and specs of short runs on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from lmzoo.compare import forecast, sample
from lmzoo.runs import run
from lmzoo.runs.run import RunSpec, make_spec
from lmzoo.train.malloc import keep_freed_memory
from tests.conditions import pytest_collection_modifyitems, pytest_terminal_summary  # noqa: F401 (hooks of pytest)
from tests.distributed.processes import Forks
from tests.durations import pytest_addoption, pytest_configure  # noqa: F401 (hooks of pytest)
from tests.freezing import freeze_modules
from tests.helpers import SHORT_SAMPLE, SHORT_TIMING, SMALL, TEXT

os.environ["HF_HUB_OFFLINE"] = "1"  # read when a library of Hugging Face is imported: a test needs no network
torch.set_num_threads(1)
# Limits of time: on a busy machine a good test would fail.
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")
SAMPLES = {module: module.SAMPLE_TOKENS for module in (run, sample)}
for module in SAMPLES:
    module.SAMPLE_TOKENS = SHORT_SAMPLE  # hundreds of tokens take longer than the training of a test
STEPS_SECONDS = forecast.STEPS_SECONDS
forecast.STEPS_SECONDS = SHORT_TIMING  # a comparison times each model for the forecast and after its training


@pytest.fixture(autouse=True)
def same_start() -> None:
    """Begin each test with one thread, and with the same weights in each run.

    Rounding errors depend on the weights: with unlucky ones they exceed a tolerance.
    """
    freeze_modules()
    torch.manual_seed(0)
    if torch.get_num_threads() != 1:  # left by another test
        torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def kept_memory() -> Iterator[None]:
    """Keep freed memory in the process: the system clears each page of the large tensors of a check anew."""
    with keep_freed_memory():
        yield


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Point the cache at a temporary folder, shared by the tests of one worker."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cache_environment(tmp_path_factory).items():
            patch.setenv(name, value)
        yield tmp_path_factory.getbasetemp() / "cache"


def cache_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.getbasetemp() / "cache"
    return {"LMZOO_CACHE": str(folder), "HF_DATASETS_CACHE": str(folder / "hf")}  # `datasets` keeps lock files there


@pytest.fixture
def full_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs and comparisons end with samples of the real length."""
    for module, tokens in SAMPLES.items():
        monkeypatch.setattr(module, "SAMPLE_TOKENS", tokens)


@pytest.fixture
def long_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time steps as long as outside of the tests."""
    monkeypatch.setattr(forecast, "STEPS_SECONDS", STEPS_SECONDS)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of about 20,000 characters."""
    path = tmp_path_factory.mktemp("text") / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Ranks that need not import torch, which takes longer than their training."""
    forks = Forks(tmp_path_factory.mktemp("forks") / "errors", cache_environment(tmp_path_factory))
    yield forks
    forks.close()


@pytest.fixture
def small_spec(text: Path) -> Callable[..., RunSpec]:
    """A spec of a small gpt2, or of another model, with given settings."""

    def make(model: str = "gpt2", **settings: Any) -> RunSpec:
        shape = SMALL if model == "gpt2" else {"context_length": 16}
        recipe = {"steps": 12, "batch_size": 4, "eval_every": 4, "log_every": 1, "warmup_steps": 2}
        return make_spec(model, str(text), overrides={**shape, **recipe, **settings})

    return make


@pytest.fixture
def copied(tmp_path: Path) -> str:
    """A folder of 30 files; 2 of the 3 files of the validation split nearly equal files of the training split."""
    folder, lines = tmp_path / "copied", TEXT.splitlines(keepends=True)
    folder.mkdir()
    texts = ["".join(lines[10 * number : 10 * (number + 1)]) for number in range(30)]
    texts[27:29] = [texts[2].replace("\n", "\n\n"), texts[5].replace("\n", " \n", 9)]
    for number, text in enumerate(texts):
        (folder / f"{number:02}.txt").write_text(text, encoding="utf-8", newline="")
    return str(folder)


@pytest.fixture
def documents(tmp_path: Path) -> str:
    """A folder of 150 short files."""
    folder = tmp_path / "documents"
    folder.mkdir()
    for number, line in enumerate(TEXT.splitlines()[:150]):
        (folder / f"{number:03}.txt").write_text(line[: 5 + number % 40], encoding="utf-8")
    return str(folder)
