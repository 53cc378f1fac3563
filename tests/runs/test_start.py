"""Tests runs that start from a trained model, with and without a teacher."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import lmzoo
from lmzoo.data.tokenizers import ByteTokenizer
from lmzoo.errors import CheckpointError, ConfigError, DataError, LmzooError
from lmzoo.runs.directory import read_tables
from lmzoo.runs.metrics import read_metrics
from lmzoo.runs.resuming import read_spec
from lmzoo.runs.run import RunSpec, load_run, train_run
from lmzoo.runs.start import fingerprint, make_objective, start_spec
from lmzoo.storage import checkpoints
from lmzoo.storage.models import load_model, tensors_of
from lmzoo.train.distill import Distillation, cross_entropy
from lmzoo.train.signals import Interrupted
from tests.distributed.processes import TOLERANCE, Forks, difference
from tests.helpers import assert_same, far_from_uniform, seeded, tensors
from tests.runs.test_resume import interrupt_at

SIZES: dict[str, Any] = {"d_model": 16, "n_layers": 2, "n_heads": 2, "context_length": 16}
RECIPE: dict[str, Any] = {"steps": 6, "batch_size": 4, "eval_every": 6, "checkpoint_every": 1, "log_every": 1}
RECIPE |= {"keep_checkpoints": 99, "warmup_steps": 1, "eval_tokens": 64}
Specify = Callable[..., RunSpec]


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    model = far_from_uniform(lmzoo.create_model("llama", vocab_size=256, **SIZES), 0.2, 1)
    model.save(tmp_path / "llama", tokenizer=ByteTokenizer())
    return tmp_path / "llama"


@pytest.fixture
def mixed(llama: Path) -> Path:
    place = llama.parent / "mixed"
    lmzoo.transplant(load_model(llama), [1], "gla").save(place, tokenizer=ByteTokenizer())
    return place


@pytest.fixture
def specify(text: Path) -> Specify:
    def make(start: Path, teacher: Path | None = None, name: str | None = None, **settings: Any) -> RunSpec:
        return start_spec(name, start, str(text), {**RECIPE, **settings}, teacher=teacher)

    return make


def test_fingerprint_depends_on_weights_and_settings() -> None:
    first, same, other = (lmzoo.create_model("llama", vocab_size=9, generator=seeded(n), **SIZES) for n in (1, 1, 2))
    assert fingerprint(first) == fingerprint(same) != fingerprint(other)
    window = lmzoo.create_model("llama", vocab_size=9, generator=seeded(1), window=3, **SIZES)
    assert fingerprint(window) != fingerprint(first)
    assert fingerprint(first.to(torch.bfloat16)) != fingerprint(same)


def test_start_spec_takes_settings_and_tokenizer_of_the_model(mixed: Path, specify: Specify, tmp_path: Path) -> None:
    spec = specify(mixed)
    assert spec.start is not None
    assert (spec.model, spec.tokenizer, spec.start.sha256) == (
        "llama-transplant",
        "byte",
        fingerprint(load_model(mixed)),
    )
    run = tmp_path / "run"
    train_run(spec, run)
    assert load_run(run).model.config == load_model(mixed).config
    assert load_run(run).tokenizer.sha256 == ByteTokenizer().sha256
    assert read_tables(run)["start"] == {
        "path": str(mixed),
        "sha256": spec.start.sha256,
        "tokenizer": "none",
        "trained": "all",
    }
    again = specify(run)  # a run is a model, too
    assert again.config == spec.config


def test_start_is_where_the_weights_come_from(llama: Path, specify: Specify, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_run(specify(llama, learning_rate=1e-30, steps=1), run)
    after = tensors_of(load_model(run))
    assert all(torch.equal(after[name], tensor) for name, tensor in tensors_of(load_model(llama)).items())


def test_start_trains_only_new_parts_if_asked(mixed: Path, specify: Specify, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_run(specify(mixed, **{"start.trained": "new"}), run)
    before, after = tensors_of(load_model(mixed)), tensors_of(load_model(run))
    same = {name for name, tensor in before.items() if torch.equal(after[name], tensor)}
    assert same == {name for name in before if not name.startswith("blocks.1.0.inner.")}


DISTILL = {"teacher.match_steps": 2, "teacher.temperature": 2.0}


@pytest.mark.parametrize("settings", [DISTILL, {"start.trained": "new", "optimizer": "muon"}, {"precision": "bf16"}])
def test_distillation_is_resumed_bitwise(
    llama: Path, mixed: Path, specify: Specify, tmp_path: Path, settings: dict[str, Any]
) -> None:
    spec = specify(mixed, llama, **settings)
    train_run(spec, tmp_path / "whole")
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train_run(spec, run, listeners=[interrupt_at(1)])
    shutil.rmtree(mixed)  # its checkpoint is enough
    for step in (3, 5):
        with pytest.raises(Interrupted):
            train_run(read_spec(run, {}), run, resume=True, listeners=[interrupt_at(step)])
        assert_same(tensors(run, step), tensors(tmp_path / "whole", step))
    train_run(read_spec(run, {}), run, resume=True)
    assert_same(tensors(run, 6), tensors(tmp_path / "whole", 6))
    lines = [[{**line, "seconds": 0, "tokens_per_s": 0} for line in read_metrics(r)] for r in (run, tmp_path / "whole")]
    assert lines[0] == lines[1]
    first, last = (line for line in lines[0] if line["step"] in (1, 6) and line["split"] == "train")
    assert ("aux.match" in first, "aux.distill" in last) == ("teacher.match_steps" in settings, True)


@pytest.mark.distributed
def test_distillation_on_two_processes_equals_one(
    llama: Path, mixed: Path, specify: Specify, tmp_path: Path, text: Path, forks: Forks
) -> None:
    settings = {**RECIPE, "precision": "float32", "start.trained": "new", "teacher.temperature": 2.0}
    train_run(specify(mixed, llama, **settings), tmp_path / "one")
    job = {"data": str(text), "start": str(mixed), "teacher": str(llama)}
    jobs = [{**job, "out": str(tmp_path / how), "settings": {**settings, "parallel": how}} for how in ("ddp", "fsdp")]
    assert forks.on_ranks(jobs, 2, tmp_path) == [["", ""]] * 2
    assert difference(tmp_path / "ddp", tmp_path / "one") < TOLERANCE
    assert difference(tmp_path / "fsdp", tmp_path / "one") < TOLERANCE


def test_make_objective_matches_features_in_one_process_only(llama: Path, mixed: Path, specify: Specify) -> None:
    spec, model = specify(mixed, llama, **{"teacher.match_steps": 2}), load_model(mixed)
    assert isinstance(make_objective(spec, model, ByteTokenizer(), 1), Distillation)
    assert make_objective(specify(mixed), model, ByteTokenizer(), 2) is cross_entropy
    with pytest.raises(ConfigError, match=r"teacher\.match_steps=2 needs one process, not 2"):
        make_objective(spec, model, ByteTokenizer(), 2)


def test_distillation_brings_the_model_nearer_to_its_teacher(
    llama: Path, mixed: Path, specify: Specify, tmp_path: Path
) -> None:
    settings = {"steps": 40, "checkpoint_every": 40, "eval_every": 40, "learning_rate": 0.003, "warmup_steps": 0}
    train_run(specify(mixed, llama, **settings, **{"teacher.weight": 1000.0}), tmp_path / "run")
    values = [line["aux.distill"] for line in read_metrics(tmp_path / "run") if line["split"] == "train"]
    assert sum(values[-5:]) < 0.5 * sum(values[:5])


def test_start_without_a_checkpoint_begins_again_from_its_weights(
    llama: Path, specify: Specify, tmp_path: Path
) -> None:
    """Repeats a kill before the first save."""
    spec, run = specify(llama, learning_rate=1e-30, steps=2), tmp_path / "run"
    train_run(spec, run)
    shutil.rmtree(run / checkpoints.FOLDER)
    train_run(read_spec(run, {}), run, resume=True)
    after = tensors_of(load_model(run))
    assert all(torch.equal(after[name], tensor) for name, tensor in tensors_of(load_model(llama)).items())
    shutil.rmtree(run / checkpoints.FOLDER)
    far_from_uniform(load_model(llama), 0.2, 9).save(llama, tokenizer=ByteTokenizer())
    with pytest.raises(CheckpointError, match="llama: has changed since the run was made"):
        train_run(read_spec(run, {}), run, resume=True)
    shutil.rmtree(llama)
    with pytest.raises(CheckpointError, match="llama"):
        train_run(read_spec(run, {}), run, resume=True)


def test_resume_needs_the_same_teacher(llama: Path, mixed: Path, specify: Specify, tmp_path: Path) -> None:
    spec, run = specify(mixed, llama), tmp_path / "run"
    with pytest.raises(Interrupted):
        train_run(spec, run, listeners=[interrupt_at(1)])
    moved = llama.rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="llama"):
        train_run(read_spec(run, {}), run, resume=True)
    assert spec.teacher is not None
    other = replace(spec, teacher=replace(spec.teacher, path=str(moved), weight=3.0))
    with pytest.raises(ConfigError, match=r"teacher\.weight=3\.0, but the run in .* was made with 1\.0"):
        train_run(other, run, resume=True)
    with pytest.raises(ConfigError, match=r"teacher\.\w+=None, but the run in"):
        train_run(replace(spec, teacher=None), run, resume=True)
    with pytest.raises(CheckpointError, match="mixed: has changed since the run was made"):
        train_run(read_spec(run, {}, teacher=mixed), run, resume=True)
    train_run(read_spec(run, {}, teacher=moved), run, resume=True)


def test_read_spec_refuses_a_teacher_for_a_run_without_one(llama: Path, specify: Specify, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_run(specify(llama, steps=1), run)
    with pytest.raises(ConfigError, match=r"the run in .* was made without a teacher"):
        read_spec(run, {}, teacher=llama)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gpt2", {}, "name='gpt2', but the model in .*llama is llama: leave the name out"),
        (None, {"d_model": 32}, "d_model=32 cannot be set in a trained model: it changes the shape of tokens.weight"),
        (None, {"start.trained": "old"}, "start: trained='old': input should be 'all' or 'new'"),
        (None, {"start.trained": "new"}, "start.trained='new': llama has no transplanted mixers"),
        (None, {"teacher.weight": 1.0}, "teacher.weight needs a teacher: --teacher"),
        (None, {"learning_rat": 1.0}, "learning_rat=1.0 is not a setting of llama or the training; did you mean"),
    ],
)
def test_start_spec_refuses(llama: Path, specify: Specify, name: str | None, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        specify(llama, name=name, **settings)


def test_start_spec_accepts_the_family_the_path_and_settings_that_keep_shapes(llama: Path, specify: Specify) -> None:
    for name in ("llama", str(llama)):
        assert specify(llama, name=name).model == "llama"
    assert specify(llama, window=5).config["window"] == 5


def teacher_of(tmp_path: Path, family: str = "llama", **settings: Any) -> Path:
    place = tmp_path / "teacher"
    lmzoo.create_model(family, vocab_size=256, **{**SIZES, **settings}).save(place, tokenizer=ByteTokenizer())
    return place


@pytest.mark.parametrize(
    ("teacher", "settings", "message"),
    [
        ({"n_layers": 1}, {"teacher.match_steps": 2}, "teacher.match_steps=2: the teacher .* must have as many layers"),
        ({"d_model": 32}, {"teacher.match_steps": 2}, "must have as many layers of the same width"),
        ({}, {"teacher.weight": float("nan")}, "teacher: weight=nan must be a finite number above 0"),
        ({}, {"teacher.match_steps": 7}, "teacher.match_steps=7 must be at most steps=6"),
        ({}, {"teacher.match_steps": 2, "compile": True}, "cannot be combined with compile=True"),
        ({"family": "gpt2", "context_length": 8}, {}, "its context_length=8 must be at least 16"),
    ],
)
def test_start_spec_refuses_a_teacher_that_does_not_fit(
    llama: Path, specify: Specify, tmp_path: Path, teacher: Any, settings: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        specify(llama, teacher_of(tmp_path, **teacher), **settings)


def test_start_spec_refuses_a_teacher_with_another_tokenizer(
    llama: Path, specify: Specify, small_spec: Specify, tmp_path: Path
) -> None:
    other = tmp_path / "chars"
    train_run(small_spec(steps=2), other)
    with pytest.raises(ConfigError, match=r"teacher=.*chars: its tokenizer differs: a teacher must have"):
        specify(llama, other)


def test_start_spec_refuses_models_that_cannot_be_trained_further(specify: Specify, tmp_path: Path) -> None:
    place = tmp_path / "counted"
    lmzoo.create_model("ngram", vocab_size=256).save(place, tokenizer=ByteTokenizer())
    with pytest.raises(ConfigError, match="ngram is not trained by gradients: there is nothing to train further"):
        specify(place)
    lmzoo.create_model("llama", vocab_size=256, **SIZES).save(tmp_path / "bare")
    with pytest.raises(DataError, match="is a saved model without a tokenizer"):
        specify(tmp_path / "bare")
    with pytest.raises(LmzooError, match="nothing"):
        specify(tmp_path / "nothing")
