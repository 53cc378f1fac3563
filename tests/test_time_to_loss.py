"""Tests scripts/time_to_loss: it trains both recipes, leaves out each part, and judges by the loss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers import load_script


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield load_script("time_to_loss", monkeypatch)


def test_time_to_loss_trains_both_recipes_and_compares_their_losses(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be, that is the question.\n" * 60, encoding="utf-8")
    shorter = {"steps": 3, "warmup_steps": 1, "batch_size": 4, "d_model": 16, "n_layers": 1, "context_length": 16}
    command = ["--data", str(text), "--threads", "1", "--seeds", "1"]
    assert script.main([*command, "2", "--target", "9"], shorter) == 0
    lines = capsys.readouterr().out.splitlines()
    both = ["nanoGPT's recipe", script.RECIPE]
    assert [line[:34].strip() for line in lines[1:-1]] == both * 2
    assert len({line[41:50] for line in lines[1:-1]}) == 4  # losses: recipes and seeds differ
    assert "9.0 reached, in " in lines[-1]
    assert script.main([*command, "--target", "0.1", "--ablation"], shorter) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line[:34].strip() for line in lines[1:-1]] == both + list(script.LEFT_OUT)
    assert "0.1 missed" in lines[-1]
