"""What every test gets: one thread, so that results do not depend on the machine, and a cache folder of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # read when a library of Hugging Face is imported: a test needs no network
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the cache at a temporary folder, shared by the tests of one worker."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("LMZOO_CACHE", str(folder))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "hf"))  # where `datasets` keeps its lock files
    return folder
