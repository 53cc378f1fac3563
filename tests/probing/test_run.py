"""Tests of a whole grid: finished cells are kept, and bad input changes nothing."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from lmzoo import registry
from lmzoo.errors import ConfigError, LmzooError
from lmzoo.model import LanguageModel, ModelConfig
from lmzoo.probing import Results, probe_models, run
from lmzoo.probing.results import read_results, write_results
from lmzoo.runs.lock import locked
from lmzoo.state import State
from lmzoo.train.events import EndEvent, Event, NoteEvent, StartEvent, StepEvent
from lmzoo.train.signals import Interrupted

QUICK = {"steps": 4, "batch_size": 4}


def probe(*models: str, out: Path, probes: str = "parity,s3", **options: Any) -> tuple[Results, list[Event]]:
    events: list[Event] = []
    listeners = [events.append, *options.pop("listeners", [])]
    settings = QUICK | options.pop("settings", {})
    return probe_models(models, probes, out, settings=settings, listeners=listeners, **options), events


def started(events: list[Event]) -> list[str]:
    return [event.model for event in events if isinstance(event, StartEvent)]


def test_probe_models_writes_every_cell_and_runs_none_again(tmp_path: Path) -> None:
    results, events = probe("bigram", out=tmp_path)
    assert started(events) == ["parity easy, bigram, seed 1337", "s3 easy, bigram, seed 1337"]
    assert sum(isinstance(event, EndEvent) for event in events) == 2  # each closes a progress bar
    assert read_results(tmp_path) == results
    assert [path.name for path in tmp_path.iterdir()] == ["probes.json"]
    before = (tmp_path / "probes.json").read_bytes()
    again, events = probe("bigram", out=tmp_path)
    assert (again, started(events)) == (results, [])
    assert (tmp_path / "probes.json").read_bytes() == before


def test_probe_models_leaves_the_same_file_whichever_cell_was_done_first(tmp_path: Path) -> None:
    """With several workers, a later cell may be done when the command is killed."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    found, _ = probe("bigram", out=whole)
    part.mkdir()
    write_results(dataclasses.replace(found, cells=found.cells[1:]), part)
    _, events = probe("bigram", out=part)
    assert started(events) == ["parity easy, bigram, seed 1337"]
    texts = [re.sub(r'"seconds": .*', "", (folder / "probes.json").read_text()) for folder in (whole, part)]
    assert texts[0] == texts[1]


def test_probe_models_adds_models_probes_levels_and_seeds(tmp_path: Path) -> None:
    first, _ = probe("bigram", out=tmp_path, probes="s3")
    more, events = probe("bigram", out=tmp_path, probes="dyck,s3", difficulty="easy,hard", seeds=2)
    assert len(started(events)) == 7
    assert [cell for cell in more.cells if cell.key == first.cells[0].key] == first.cells
    assert [(level.probe, level.difficulty) for level in more.levels] == [
        ("s3", "easy"),
        ("dyck", "easy"),
        ("dyck", "hard"),
        ("s3", "hard"),
    ]
    assert more.models == ["bigram"]
    assert [cell.seed for cell in more.of("bigram", more.levels[0])] == [1337, 1338]


def test_probe_models_states_the_time_left(tmp_path: Path) -> None:
    _, events = probe("bigram", out=tmp_path)
    notes = [event.message for event in events if isinstance(event, NoteEvent)]
    assert notes[0] == "2 cells, of which 0 are done"
    assert "cell 1 of 2" in notes
    assert any(note.startswith("cell 2 of 2, about ") and note.endswith(" left") for note in notes)


def test_probe_models_stopped_by_ctrl_c_loses_nothing_finished(tmp_path: Path) -> None:
    whole, _ = probe("bigram", out=tmp_path / "whole")
    seen: list[str] = []

    def stop(event: Event) -> None:
        if isinstance(event, StartEvent):
            seen.append(event.model)
        if isinstance(event, StepEvent) and len(seen) == 2 and event.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped s3 easy, bigram, seed 1337 after step 2"):
        probe("bigram", out=tmp_path / "out", listeners=[stop])
    assert [cell.probe for cell in read_results(tmp_path / "out").cells] == ["parity"]
    again, events = probe("bigram", out=tmp_path / "out")
    assert started(events) == ["s3 easy, bigram, seed 1337"]
    assert sum(isinstance(event, StepEvent) for event in events) == 2
    assert [cell.curve for cell in again.cells] == [cell.curve for cell in whole.cells]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["probes.json"]


def test_probe_models_continues_after_a_stop_in_the_first_cell(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StepEvent):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        probe("bigram", out=tmp_path, listeners=[stop])
    results, _ = probe("bigram", out=tmp_path)
    assert len(results.cells) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.5}, r"learning_rate=0.5, but .*probes.json holds parity easy, bigram, seed 1337 with"),
        ({"steps": 5}, "steps=5, but .* with 4: probe in another directory"),
    ],
)
def test_probe_models_refuses_other_settings(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    probe("bigram", out=tmp_path, probes="parity")
    before = (tmp_path / "probes.json").read_bytes()
    with pytest.raises(ConfigError, match=message):
        probe("bigram", out=tmp_path, settings=settings)
    assert (tmp_path / "probes.json").read_bytes() == before


def test_probe_models_writes_nothing_for_bad_input(tmp_path: Path) -> None:
    for models, probes in ((["bigram"], "nothing"), (["bigrum"], "s3")):
        with pytest.raises(LmzooError):
            probe(*models, out=tmp_path / "out", probes=probes)
    assert not (tmp_path / "out").exists()
    (tmp_path / "novel.txt").write_text("text")
    with pytest.raises(ConfigError, match="exists, is not empty, and holds no probe results"):
        probe("bigram", out=tmp_path)
    (tmp_path / "probes.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        probe("bigram", out=tmp_path)


def test_probe_models_refuses_a_directory_in_use(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ConfigError, match="by another process"):
        probe("bigram", out=tmp_path)


class Leaky(LanguageModel):
    """Averages over the whole sequence, later tokens included."""

    family = "leaky"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, 8)
        self.head = nn.Linear(8, config.vocab_size)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD = self.embedding(idx_BT)
        return x_BTD + x_BTD.mean(dim=1, keepdim=True), state


def test_probe_models_refuses_a_directory_that_another_command_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading the results and taking the lock: they would be written without those of the other command."""
    plain = run.choose_processes

    def meanwhile(*given: Any) -> int:
        monkeypatch.setattr(run, "choose_processes", plain)
        probe("bigram", out=tmp_path)
        return plain(*given)

    monkeypatch.setattr(run, "choose_processes", meanwhile)
    with pytest.raises(ConfigError, match="was changed by another process: the same command continues"):
        probe("mlp", out=tmp_path)
    assert read_results(tmp_path).models == ["bigram"]


def test_probe_models_does_not_train_what_fails_a_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._classes, "leaky", Leaky)
    results, events = probe("leaky", "bigram", out=tmp_path, probes="parity")
    failed, trained = results.cells
    assert (failed.model, failed.status, failed.accuracy_trained) == ("leaky", "failed", None)
    assert "causality" in failed.problem
    assert trained.status == "trained"
    assert started(events) == ["parity easy, bigram, seed 1337"]


def test_probe_models_goes_on_after_a_plug_in_that_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Raising(Leaky):
        """Raises an error when it is trained."""

        family = "raising"

        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            if self.training and self.config.vocab_size == 2:
                raise KeyError("of the plug-in")
            return self.embedding(idx_BT), state

    monkeypatch.setitem(registry._classes, "raising", Raising)
    results, _ = probe("raising", "bigram", out=tmp_path, probes="parity")
    assert [cell.status for cell in results.cells] == ["failed", "trained"]
    assert results.cells[0].problem
