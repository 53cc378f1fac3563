"""What every test gets: one thread, so that results do not depend on the machine, and a cache folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the cache at a temporary folder, shared by the tests of one worker."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("LMZOO_CACHE", str(folder))
    return folder
