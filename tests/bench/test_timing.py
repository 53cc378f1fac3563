"""Works that are compared are timed in turns."""

from __future__ import annotations

import time

from lmzoo.bench.timing import interleaved


def test_rounds_are_taken_in_turns_and_the_first_does_not_count() -> None:
    order: list[str] = []

    def slow_at_first() -> None:
        time.sleep(0.0 if order else 0.2)
        order.append("a")

    seconds = interleaved({"a": slow_at_first, "b": lambda: order.append("b")}, repeats=2)
    assert order == ["a", "b"] * 3
    assert seconds["a"] < 0.1
