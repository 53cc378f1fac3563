"""Tests that a run, a checkpoint of it and a saved model are exported, with the results of the right step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lmzoo
from lmzoo.data.tokenizers import ByteTokenizer
from lmzoo.errors import CheckpointError, ConfigError
from lmzoo.runs.export import export_run
from lmzoo.storage import checkpoints
from tests.helpers import SMALL, TEXT, assert_same
from tests.helpers import damage as damage_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints at steps 2 and 4."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "text.txt").write_text(TEXT)
    quick = {"steps": 4, "batch_size": 2, "checkpoint_every": 2, "eval_every": 2}
    lmzoo.train("llama", str(folder / "text.txt"), folder / "run", progress=False, **SMALL, **quick)
    return folder / "run"


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(lmzoo.load_model(path).named_parameters())


def test_export_run_takes_the_newest_checkpoint_or_a_given_one(run: Path, tmp_path: Path) -> None:
    for source, step in ((run, 4), (run / "checkpoints", 4), (checkpoints.path_of(run, 2), 2)):
        out = tmp_path / f"{source.name}-out"
        written = export_run(source, out, license="mit")
        assert (written.path, written.model_type, written.dtype) == (out, "llama", "float32")
        assert_same(weights(out), weights(checkpoints.path_of(run, step)))
        card = (out / "README.md").read_text()
        assert f"| training steps | {step} |" in card
        assert "validation loss" in card
        assert str(run.parent) not in card, "names of own files say nothing to others"
        assert lmzoo.load_tokenizer(out).encode("The 1") == lmzoo.load_tokenizer(run).encode("The 1")


def test_export_run_casts_weights_and_takes_a_type(run: Path, tmp_path: Path) -> None:
    written = export_run(run, tmp_path / "out", dtype=torch.bfloat16, model_type="mistral")
    assert (written.model_type, written.dtype) == ("mistral", "bfloat16")
    assert lmzoo.load_model(tmp_path / "out").dtype == torch.bfloat16


def test_export_run_takes_a_saved_model_with_and_without_a_tokenizer(tmp_path: Path) -> None:
    lmzoo.create_model("retnet", vocab_size=256, **SMALL).save(tmp_path / "saved")
    written = export_run(tmp_path / "saved", tmp_path / "bare")
    assert (written.model_type, "tokenizer.json" in written.files) == ("lmzoo", False)
    ByteTokenizer().save(tmp_path / "byte.json")
    written = export_run(tmp_path / "saved", tmp_path / "out", tokenizer=tmp_path / "byte.json")
    assert {"tokenizer.json", "tokenizer_config.json"} <= {*written.files}
    again = export_run(tmp_path / "out", tmp_path / "again")
    assert again.files == written.files
    assert_same(weights(tmp_path / "again"), weights(tmp_path / "saved"))


def test_export_run_refuses_with_nothing_written(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^attention_bias='none': qwen2 does not have this"):
        export_run(run, tmp_path / "out", model_type="qwen2")
    with pytest.raises(CheckpointError, match=r"there is no such run or checkpoint"):
        export_run(tmp_path / "missing", tmp_path / "out")
    assert not [*tmp_path.iterdir()]


def test_export_run_describes_the_checkpoint_that_was_loaded(run: Path, tmp_path: Path) -> None:
    """The last test of the shared run: its newest checkpoint is damaged, so the one before is exported."""
    damage_checkpoint(run, 4)
    with pytest.warns(checkpoints.DamagedCheckpointWarning):
        export_run(run, tmp_path / "out")
    assert "| training steps | 2 |" in (tmp_path / "out/README.md").read_text()
