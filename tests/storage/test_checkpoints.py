"""Tests of finding checkpoints: the newest one of a run, and folders that must be refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lmzoo
from lmzoo.errors import CheckpointError
from lmzoo.model import LanguageModel
from lmzoo.storage import checkpoints


def test_find_refuses_folders_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing: there is no such run or checkpoint"):
        lmzoo.load_model(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"holds no model: it has neither checkpoints/ nor manifest\.json$"):
        lmzoo.load_model(tmp_path)
    (tmp_path / "checkpoints" / "step-1").mkdir(parents=True)  # not a name that lmzoo writes
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        lmzoo.load_model(tmp_path)


def test_find_returns_the_newest_checkpoint_and_skips_links(model: LanguageModel, tmp_path: Path) -> None:
    for step in (2, 10):
        with torch.no_grad():
            model.get_parameter("norm.weight").fill_(step)
        model.save(checkpoints.path_of(tmp_path, step))
    checkpoints.path_of(tmp_path, 99).symlink_to(checkpoints.path_of(tmp_path, 2))
    assert lmzoo.load_model(tmp_path).get_parameter("norm.weight").mean().item() == 10


def test_saved_refuses_checkpoints_that_are_a_link(model: LanguageModel, tmp_path: Path) -> None:
    """The trainer removes and renames checkpoints, so they must not be outside the run directory."""
    model.save(checkpoints.path_of(tmp_path / "mine", 2))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "checkpoints").symlink_to(tmp_path / "mine" / "checkpoints")
    with pytest.raises(CheckpointError, match="theirs/checkpoints: must be a folder, not a link"):
        lmzoo.load_model(tmp_path / "theirs")


def test_step_of_is_read_from_the_name(tmp_path: Path) -> None:
    assert checkpoints.step_of(checkpoints.path_of(tmp_path, 42)) == 42
    assert checkpoints.step_of(tmp_path / ".step-00000042.replaced") == 42
    assert checkpoints.step_of(tmp_path / "model") is None
