"""Tests that a run that was stopped and resumed ends bitwise equal to one that never stopped.

Kills from outside, at any time and during a save, are in tests/stress.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lmzoo.data.corpora import load_corpus
from lmzoo.errors import CheckpointError, ConfigError, DataError
from lmzoo.runs import inputs
from lmzoo.runs.directory import read_tables
from lmzoo.runs.metrics import read_metrics
from lmzoo.runs.run import RunSpec, load_run, train_run
from lmzoo.storage import checkpoints
from lmzoo.train import evaluate
from lmzoo.train.events import CheckpointEvent, EvalEvent, Event, NoteEvent, SavingEvent, StepEvent
from lmzoo.train.signals import Interrupted
from tests.helpers import TEXT, assert_same, tensors

MakeSpec = Callable[..., RunSpec]


def interrupt_at(step: int, kind: type[StepEvent | SavingEvent] = StepEvent) -> Callable[[Event], None]:
    """Make a listener that sends this process Ctrl-C during `step`, or during its save."""

    def listen(event: Event) -> None:
        if isinstance(event, kind) and event.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return listen


def losses(run: Path) -> list[tuple[int, str, float]]:
    return [(line["step"], line["split"], line["loss"]) for line in read_metrics(run)]


SHORT = TEXT[:700]  # about 39 sequences: an epoch ends within the fourth batch of three


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("gpt2", {"dropout": 0.2}),
        ("gpt2", {"precision": "bf16"}),
        ("lstm", {"d_model": 16, "n_layers": 2, "dropout": 0.2, "schedule": "wsd"}),
        ("mamba", {"d_model": 16, "n_layers": 1, "d_state": 4}),
        ("gpt2", {"optimizer": "muon", "schedule": "linear"}),
        ("bigram", {}),
    ],
)
def test_resume_after_every_step_is_bitwise_exact(
    tmp_path: Path, small_spec: MakeSpec, model: str, settings: dict[str, object]
) -> None:
    """One run is stopped after each of its steps; another saves after each. They are bitwise equal in every step.

    So from whatever step a run is resumed, the next is as if it had never stopped, and so are all that follow. An epoch
    ends within an accumulated batch, and evaluations fall on steps that are stopped in and on others.
    """
    (tmp_path / "short.txt").write_text(SHORT, encoding="utf-8")
    every = {"checkpoint_every": 1, "keep_checkpoints": 99}
    spec = small_spec(model, grad_accumulation=3, **settings, **every)
    spec = dataclasses.replace(spec, data=str(tmp_path / "short.txt"))
    train_run(spec, tmp_path / "whole")
    run = tmp_path / "run"
    for step in range(1, 13):
        with pytest.raises(Interrupted, match=f"stopped after step {step}, saved in .*; continue .* --resume"):
            train_run(spec, run, resume=True, listeners=[interrupt_at(step)])
        assert checkpoints.saved(run)[0][0] == step
        assert_same(tensors(run, step), tensors(tmp_path / "whole", step))
    train_run(spec, run, resume=True)
    assert_same(tensors(run, 12), tensors(tmp_path / "whole", 12))
    assert losses(run) == losses(tmp_path / "whole")


def test_resume_makes_the_evaluation_that_a_signal_prevented(tmp_path: Path, small_spec: MakeSpec) -> None:
    """Also if it happens twice: lines that were logged before a kill are not logged again."""
    spec = small_spec()
    train_run(spec, tmp_path / "whole")
    run, val = tmp_path / "run", lambda: [line["step"] for line in read_metrics(run) if line["split"] == "val"]
    with pytest.raises(Interrupted):
        train_run(spec, run, listeners=[interrupt_at(8)])
    assert val() == [4]

    def fail(event: Event) -> None:
        if isinstance(event, EvalEvent):
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            train_run(spec, run, resume=True, listeners=[fail])
        assert val() == [4, 8]
    train_run(spec, run, resume=True)
    assert losses(run) == losses(tmp_path / "whole")
    best = [checkpoints.find(path).json("training.json")["best_step"] for path in (run, tmp_path / "whole")]
    assert best[0] == best[1]


def test_resume_repeats_an_ended_evaluation(
    tmp_path: Path, small_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation takes as long as many steps, so a signal ends the run without waiting for it."""
    monkeypatch.setattr(evaluate, "TOKENS_AT_A_TIME", 16)
    spec, run, seen = small_spec(), tmp_path / "run", 0
    batches = evaluate.split_batches

    def interrupting(*arguments: Any) -> Iterator[Any]:
        nonlocal seen
        for batch in batches(*arguments):
            seen += 1
            if seen == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(evaluate, "split_batches", interrupting)
    with pytest.raises(Interrupted, match="stopped after step 4"):
        train_run(spec, run)
    assert seen in (5, 6)
    monkeypatch.setattr(evaluate, "split_batches", batches)
    train_run(spec, run, resume=True)
    train_run(spec, tmp_path / "whole")
    assert losses(run) == losses(tmp_path / "whole")
    kept, whole = ([line.get("activations") for line in read_metrics(path)] for path in (run, tmp_path / "whole"))
    assert kept == whole, "also the gradient norms of the step, which is not made again"
    assert sum("grad_norms" in (line or {}) for line in kept) == 3


@pytest.mark.parametrize("step", [4, 12])
def test_resume_after_a_signal_during_a_save(tmp_path: Path, small_spec: MakeSpec, step: int) -> None:
    """No further step and no further save follow: the checkpoint of this save is the last."""
    spec, run = small_spec(checkpoint_every=4), tmp_path / "run"
    with pytest.raises(Interrupted, match=f"stopped after step {step}"):
        train_run(spec, run, listeners=[interrupt_at(step, SavingEvent)])
    train_run(spec, run, resume=True)
    train_run(spec, tmp_path / "whole")
    assert losses(run) == losses(tmp_path / "whole")


def test_resume_after_a_signal_in_the_last_step(tmp_path: Path, small_spec: MakeSpec) -> None:
    """The last evaluation is made on resuming; then the checkpoint without it is replaced."""
    spec, run = small_spec(), tmp_path / "run"
    with pytest.raises(Interrupted, match="stopped after step 12"):
        train_run(spec, run, listeners=[interrupt_at(12)])
    result = train_run(spec, run, resume=True)
    assert train_run(spec, run, resume=True) == result
    assert checkpoints.find(run).json("training.json")["val_loss"] == result.loss
    assert train_run(spec, tmp_path / "whole").loss == result.loss
    assert losses(run) == losses(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (('kernels = "none"', 'kernels = "fla-core 0.6.0"'), "kernels is none and was fla-core 0.6.0, "),
        (('kernels = "none"\n', ""), ""),  # a run of a version that did not record them
    ],
)
def test_resume_notes_a_different_machine(
    tmp_path: Path, small_spec: MakeSpec, changed: tuple[str, str], what: str
) -> None:
    spec, run = small_spec(), tmp_path / "run"
    with pytest.raises(Interrupted):
        train_run(spec, run, listeners=[interrupt_at(3)])
    config = run / "config.toml"
    recorded = config.read_text()
    assert 'kernels = "none"' in recorded
    config.write_text(recorded.replace("threads = 1", "threads = 7").replace(*changed))
    notes: list[str] = []
    train_run(
        spec, run, resume=True, listeners=[lambda e: notes.append(e.message) if isinstance(e, NoteEvent) else None]
    )
    what += "threads is 1 and was 7"
    assert notes == [f"the run continues on a different machine ({what}): its numbers may differ in the last bits"]


def test_resume_drops_only_the_damaged_lines_of_a_log(tmp_path: Path, small_spec: MakeSpec) -> None:
    spec, run = small_spec(), tmp_path / "run"
    with pytest.raises(Interrupted):
        train_run(spec, run, listeners=[interrupt_at(6)])
    file = run / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], b"\xff\xfe\n", b"[1]\n", b'{"step": "2"}\n', *lines[2:], lines[0][:20]]))
    assert [line["step"] for line in read_metrics(run)] == [1, 3, 4, 4, 5, 6]
    notes: list[str] = []
    train_run(
        spec, run, resume=True, listeners=[lambda e: notes.append(e.message) if isinstance(e, NoteEvent) else None]
    )
    assert notes == [f"{file}: 4 lines cannot be read and are dropped"]
    assert [line["step"] for line in read_metrics(run)] == [1, 3, 4, 4, *range(5, 9), *range(8, 13), 12]


def test_resume_skips_a_damaged_newest_checkpoint_and_notes_it(tmp_path: Path, small_spec: MakeSpec) -> None:
    spec = small_spec()
    train_run(spec, tmp_path / "whole")
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train_run(spec, run, listeners=[interrupt_at(6)])
    file = checkpoints.path_of(run, 6) / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[-9] ^= 4
    file.write_bytes(content)
    with pytest.warns(
        checkpoints.DamagedCheckpointWarning, match=r"optimizer.safetensors: its SHA-256 .*-00000004 is used"
    ):
        load_run(run)
    notes: list[str] = []
    train_run(
        spec, run, resume=True, listeners=[lambda e: notes.append(e.message) if isinstance(e, NoteEvent) else None]
    )
    assert len(notes) == 1
    assert "set aside as damaged-step-00000006; training continues from step 4" in notes[0]
    assert_same(tensors(run, 12), tensors(tmp_path / "whole", 12))
    assert losses(run) == losses(tmp_path / "whole")


def test_load_run_refuses_a_run_whose_checkpoints_are_all_damaged(tmp_path: Path, small_spec: MakeSpec) -> None:
    train_run(small_spec(), tmp_path / "run")
    for _, folder in checkpoints.saved(tmp_path / "run"):
        (folder / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"step-00000012/manifest.json: is not JSON"):
        load_run(tmp_path / "run")


def test_train_run_keeps_the_newest_and_the_best_checkpoint(tmp_path: Path, small_spec: MakeSpec) -> None:
    rising = {"learning_rate": 1.0, "schedule": "constant", "warmup_steps": 0}  # so the first checkpoint is the best
    spec = small_spec("bigram", keep_checkpoints=1, checkpoint_every=2, **rising)
    saved: list[int] = []
    train_run(
        spec, tmp_path / "run", listeners=[lambda e: saved.append(e.step) if isinstance(e, CheckpointEvent) else None]
    )
    assert saved == [2, 4, 6, 8, 10, 12]
    val = {line["step"]: line["loss"] for line in read_metrics(tmp_path / "run") if line["split"] == "val"}
    best = min(val, key=val.__getitem__)
    assert best == 4
    assert {step for step, _ in checkpoints.saved(tmp_path / "run")} == {12, best}


@pytest.mark.parametrize("schedule", ["constant", "wsd"])
def test_train_run_prolonged_equals_a_longer_run(tmp_path: Path, small_spec: MakeSpec, schedule: str) -> None:
    """A constant run after its end; wsd, which decays from step 16 of 20, when it was stopped before that."""
    long = small_spec(schedule=schedule, steps=30, checkpoint_every=4)
    short = dataclasses.replace(long, train=dataclasses.replace(long.train, steps=20))
    train_run(long, tmp_path / "long")
    run = tmp_path / "run"
    if schedule == "constant":
        train_run(short, run)
        before = (run / "sample.txt").read_text()
    else:
        with pytest.raises(Interrupted):
            train_run(short, run, listeners=[interrupt_at(16)])
    with pytest.raises(ConfigError, match=r"train.steps=30, but the run in .* was made with 20"):
        train_run(long, run, resume=True)
    train_run(long, run, resume=True, prolong=True)
    assert_same(tensors(run, 30), tensors(tmp_path / "long", 30))
    assert losses(run) == losses(tmp_path / "long")
    if schedule == "constant":
        assert (run / "sample.txt").read_text() == (tmp_path / "long" / "sample.txt").read_text() != before
    assert (run / "config.toml").read_text().count("steps = 30\n") == 1


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_train_run_refuses_to_prolong_a_decayed_run(tmp_path: Path, small_spec: MakeSpec, schedule: str) -> None:
    spec = small_spec(schedule=schedule)
    train_run(spec, tmp_path / "run")
    before = (tmp_path / "run" / "config.toml").read_text()
    longer = dataclasses.replace(spec, train=dataclasses.replace(spec.train, steps=20))
    with pytest.raises(ConfigError, match=f"steps=20: .* has schedule='{schedule}', which began to decay after step"):
        train_run(longer, tmp_path / "run", resume=True, prolong=True)
    assert (tmp_path / "run" / "config.toml").read_text() == before


def test_resume_of_a_run_on_isolated_documents_is_bitwise_exact(
    tmp_path: Path, small_spec: MakeSpec, documents: str
) -> None:
    spec = dataclasses.replace(small_spec(documents="isolated", grad_accumulation=2), data=documents)
    result = train_run(spec, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train_run(spec, tmp_path / "stopped", listeners=[interrupt_at(5)])
    train_run(spec, tmp_path / "stopped", resume=True)
    assert_same(tensors(tmp_path / "whole", 12), tensors(tmp_path / "stopped", 12))
    lines = read_metrics(tmp_path / "whole")
    tokens = [line["tokens"] for line in lines if line["split"] == "train"]
    assert len({after - before for before, after in pairwise(tokens)}) > 3, "steps differ in their targets"
    assert tokens[-1] == result.tokens < 12 * 2 * 4 * 16
    other = dataclasses.replace(small_spec(documents="joined", grad_accumulation=2), data=documents)
    with pytest.raises(ConfigError, match=r"train.documents='joined', but the run in .* was made with 'isolated'"):
        train_run(other, tmp_path / "whole", resume=True)


@pytest.mark.parametrize("older", [False, True])
def test_resume_evaluates_on_the_text_of_the_run(
    tmp_path: Path, small_spec: MakeSpec, copied: str, older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its near-duplicates, or with them in a run from before they were removed."""
    spec, run = dataclasses.replace(small_spec("bigram"), data=copied), tmp_path / "run"
    with monkeypatch.context() as patch:
        if older:
            patch.setattr(inputs, "load_corpus", partial(load_corpus, keep_near_duplicates=True))
            patch.setattr(inputs, "load_data", lambda data, **_: inputs.load_corpus(data))
            patch.setattr("lmzoo.runs.run.load_data", inputs.load_data)
        train_run(spec, tmp_path / "whole")
        with pytest.raises(Interrupted):
            train_run(spec, run, listeners=[interrupt_at(5)])
    assert ("validation_sha256" in read_tables(run)["data"]) is not older
    train_run(spec, run, resume=True)
    assert losses(run) == losses(tmp_path / "whole")


def test_resume_refuses_a_text_with_other_near_duplicates(tmp_path: Path, small_spec: MakeSpec, copied: str) -> None:
    spec, run = dataclasses.replace(small_spec("bigram"), data=copied), tmp_path / "run"
    train_run(spec, run)
    joined = tmp_path / "joined.txt"
    joined.write_bytes("".join(load_corpus(copied).chunks()).encode())
    with pytest.raises(DataError, match=r"data.validation_sha256=None, but the run in .* was made with"):
        train_run(dataclasses.replace(spec, data=str(joined)), run, resume=True)
