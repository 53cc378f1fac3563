"""Tests the engine that does jobs in this process."""

from __future__ import annotations

from dataclasses import dataclass

from lmzoo.compare.jobs import Alone


@dataclass(frozen=True)
class Named:
    label: str


def test_alone_does_a_job_when_it_is_submitted() -> None:
    done: list[str] = []
    engine = Alone[Named, int](lambda job: done.append(job.label) or len(done))
    for name in ("a", "b"):
        engine.submit(Named(name))
    assert (done, engine.workers) == (["a", "b"], 1)
    assert engine.wait(9.0) == [1, 2]
    assert engine.wait(9.0) == [], "each is returned once"
    engine.stop()
