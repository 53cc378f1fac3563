"""Half of the checks in a second process: the same results, in the same order, also when the process ends early."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import cast

import pytest

from lmzoo.conformance import Result, Subject, check_model, subject
from lmzoo.conformance.beside import Beside
from lmzoo.conformance.fresh import FreshProcess
from lmzoo.conformance.report import Fault
from tests.museum.exhibits import mask_off_by_one

NAMES = ["construction", "shapes", "causality", "state_rows", "compiles", "flops", "save_and_load"]


def test_beside_gives_the_same_results_in_the_same_order() -> None:
    alone = check_model("mlp", only=NAMES)
    announced: list[Result] = []
    beside = check_model("mlp", only=NAMES, processes=2, listener=announced.append)
    assert [(r.name, r.passed, r.saw) for r in beside.results] == [(r.name, r.passed, r.saw) for r in alone.results]
    assert announced == list(beside.results)


def test_beside_finds_the_faults_of_a_model() -> None:
    found: dict[str, Result] = {}
    waiting = deque(["shapes", "causality"])
    with FreshProcess() as process:
        Beside(process, subject(mask_off_by_one.MODEL), waiting, found).join()
    assert {name: result.passed for name, result in found.items()} == {"causality": False, "shapes": True}


class Ended:
    """A process that has ended before its first check, or before it knows the subject."""

    def __init__(self, knows_the_subject: bool) -> None:
        self.knows_the_subject = knows_the_subject
        self.keeps_the_caller = True

    def use(self, _subject: Subject) -> None:
        time.sleep(0.05)  # so that only a caller that waits sees what follows
        self.keeps_the_caller = not threading.current_thread().daemon
        if not self.knows_the_subject:
            raise Fault("ended")

    def run(self, check: str) -> Result:
        raise Fault("ended")


@pytest.mark.parametrize("knows_the_subject", [False, True])
def test_beside_puts_back_the_check_of_a_process_that_has_ended(knows_the_subject: bool) -> None:
    found: dict[str, Result] = {}
    waiting = deque(["shapes", "causality"])
    process = Ended(knows_the_subject)
    Beside(cast(FreshProcess, process), subject(mask_off_by_one.MODEL), waiting, found).join()
    assert (list(waiting), found) == (["shapes", "causality"], {})
    assert not process.keeps_the_caller, "a caller that ends does not wait for the thread"


def test_beside_leaves_the_rest_to_the_caller_when_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(process: FreshProcess, check: str) -> Result:
        process.close()
        raise Fault("ended")

    monkeypatch.setattr(FreshProcess, "run", fails)
    report = check_model("mlp", only=["construction", "shapes", "causality"], processes=2)
    assert report.passed
    assert [result.name for result in report.results] == ["construction", "shapes", "causality"]
