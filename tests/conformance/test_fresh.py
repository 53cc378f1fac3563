"""The process that `save_and_load` starts, from the side of the caller."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from lmzoo.conformance import Fault, check_model, subject, suite
from lmzoo.conformance.fresh import FreshProcess, reference
from lmzoo.conformance.saving import require_loaded, save_request
from tests.museum.base import MuseumConfig, Transformer


def test_fresh_process_ends_when_it_is_closed() -> None:
    process = FreshProcess()
    process.close()
    assert process._process.returncode is not None
    assert all(pipe is not None and pipe.closed for pipe in (process._process.stdin, process._process.stdout))
    assert process._errors.closed
    process.close()


def test_fresh_process_reports_why_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    failed = pytest.raises(Fault, match="a fresh process cannot load the saved model: no message")
    with FreshProcess() as process, failed:
        process.load([Path()])


def test_fresh_process_loads_a_model_and_runs_a_check(tmp_path: Path) -> None:
    logits_BTV = save_request(subject(Transformer), tmp_path)
    with FreshProcess() as process:
        process.load([tmp_path])
        require_loaded(tmp_path, logits_BTV)
        process.use(subject(Transformer))
        result = process.run("shapes")
    assert (result.name, result.passed, result.saw) == ("shapes", True, run("shapes"))


def run(name: str) -> str:
    return check_model(Transformer, only=[name]).results[0].saw


class Broken(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        raise ValueError("broken")


def test_fresh_process_ends_when_the_model_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[FreshProcess] = []

    class Noted(FreshProcess):
        def __init__(self) -> None:
            super().__init__()
            started.append(self)

    monkeypatch.setattr(suite, "FreshProcess", Noted)
    assert check_model(Broken).failures == ["construction"]
    assert [process._process.returncode for process in started] == [-signal.SIGKILL]


def test_reference_names_the_module_of_a_base_class_for_a_class_that_its_own_does_not_hold() -> None:
    made = type("Made", (Transformer,), {"__module__": __name__})
    assert reference(made)["module"] == Transformer.__module__


def test_fresh_process_that_was_closed_raises_a_fault() -> None:
    """Ctrl-C closes it while a thread waits for its answer, which must not end in a traceback."""
    process = FreshProcess()
    process.close()
    with pytest.raises(Fault, match="no message"):
        process.run("shapes")
