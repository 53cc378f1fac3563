"""Predicts how long the runs of a comparison still take, from what the models cost and from the time spent so far."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from lmzoo.compare.course import Course, Part
from lmzoo.compare.forecast import Cost, part_seconds, steps_done, total_seconds
from lmzoo.compare.measure import Measurer
from lmzoo.runs.metrics import last_step

TRUSTED_SHARE = 0.05  # share of the work after which the time left follows from the time spent


class Prediction:
    """The costs of the models, and the seconds that their runs take with them."""

    def __init__(self, courses: Sequence[Course], measurer: Measurer, workers: int, first_seed: int) -> None:
        self._courses, self._measurer, self._workers, self._first_seed = courses, measurer, workers, first_seed
        self._costs: dict[str, Cost] = {}
        self._predicted: dict[tuple[str, int, int, bool], float] = {}  # of parts that have not begun
        self._began, self._work = time.monotonic(), 0.0  # seconds of one worker that were predicted for all runs

    def take(self, model: str, cost: Cost) -> None:
        """Take what a model costs."""
        self._costs[model] = cost

    def of_all(self) -> float:
        """Return the predicted seconds of all runs, before they begin."""
        left = self._left()
        self._work = _sum(left)
        return total_seconds(left, self._workers)

    def of_steps(self, steps: Mapping[str, float]) -> float:
        """Return the predicted seconds of numbers of training steps by model, without those that were not timed."""
        return sum(number * self._costs[model].step for model, number in steps.items() if model in self._costs)

    def begin(self) -> None:
        """Note that the runs begin now."""
        self._began = time.monotonic()

    def spent(self) -> float:
        """Return the seconds since the runs began."""
        return time.monotonic() - self._began

    def left(self) -> float | None:
        """Return the seconds until the last run is done: as predicted, scaled by the time spent so far."""
        if not self._costs:
            return None
        left = self._left()
        done = self._work - _sum(left)
        scale = self.spent() * self._workers / done if done > TRUSTED_SHARE * self._work else 1.0
        return total_seconds(left, self._workers) * scale

    def _left(self) -> list[list[list[float]]]:
        """Return the predicted seconds of all that is still to be trained: by model, in the groups of `Course.left`."""
        return [
            [[self.of_part(part, begun=course.running(part.cell)) for part in group] for group in course.left()]
            for course in self._courses
        ]

    def of_part(self, part: Part, *, begun: bool = False) -> float:
        """Return the predicted seconds of a part of a run; 0 if nothing was measured."""
        cost, store = self._costs.get(part.cell.model), self._measurer.data.store
        if cost is None or store is None:
            return 0.0
        key = (part.cell.label, part.start, part.end, part.trial)
        if not begun and key in self._predicted:
            return self._predicted[key]
        step = last_step(part.cell.run) if begun else None
        done = steps_done(part.cell) if step is None else step[0]
        start, first = min(max(part.start, done), part.end), part.cell.seed == self._first_seed
        given = {"first": first, "tuned": bool(self._measurer.halves), "trial": part.trial}
        seconds = part_seconds(part.cell, cost, store.val, start, part.end, **given)
        if not begun:
            self._predicted[key] = seconds
        return seconds


def _sum(left: Sequence[Sequence[Sequence[float]]]) -> float:
    return sum(seconds for groups in left for group in groups for seconds in group)
