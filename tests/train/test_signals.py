"""Tests the handling of Ctrl-C and SIGTERM during training."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from lmzoo.distributed.ranks import ALONE
from lmzoo.train.signals import SIGNALS, Interrupted, StopAsked, stop_request


@pytest.mark.parametrize("number", SIGNALS)
def test_stop_request_notes_the_first_signal(number: signal.Signals) -> None:
    with stop_request(ALONE) as stop:
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(StopAsked):
            stop.check()
        assert stop.signal_number == number


def test_stop_request_gives_the_second_signal_its_default_effect() -> None:
    with stop_request(ALONE):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_stop_request_restores_the_handlers() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_request(ALONE):
        assert [signal.getsignal(number) for number in SIGNALS] != before
        os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_stop_request_in_another_thread_installs_no_handler() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    found: list[object] = []

    def work() -> None:
        with stop_request(ALONE) as stop:
            stop.check()
            found.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == before


def test_interrupted_is_a_keyboard_interrupt_that_names_the_checkpoint() -> None:
    error = Interrupted(7, Path("runs/x/checkpoints/step-00000007"), signal.SIGINT)
    assert isinstance(error, KeyboardInterrupt)
    assert str(error).startswith("stopped after step 7, saved in runs/x/checkpoints/step-00000007; continue with")
