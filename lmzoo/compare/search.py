"""The search of the recipe of one model: which run is needed next, given the losses so far.

Several settings are searched one after another, each at the best values of those before it; those that follow have the
middle values of their grids, which are the same for every model. A grid over all settings would need as many runs as
the product of the numbers of values; this way needs fewer than their sum.

With successive halving, all values of a setting are tried in the first part of the training, where the grid is widened
too; then the better half goes on to the next part, and so on. A run that diverged is infinitely bad in every part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lmzoo.compare.tune import MOST_ADDED, Grid, at_end, best_value, next_value

Point = tuple[float, ...]  # a value of each setting


@dataclass(frozen=True)
class Trial:
    """A run with a value of each setting, up to a step."""

    point: Point
    steps: int


@dataclass(frozen=True)
class Stage:
    """The search of one setting, the `number`-th of the points; the others have the values of `base`.

    `rungs` are the steps at which losses are compared: only the last one without halving. `losses` are of all stages
    so far.
    """

    grid: Grid
    number: int
    base: Point
    rungs: Sequence[int]
    losses: Mapping[Trial, float]
    most_added: int

    def trial(self, value: float, steps: int) -> Trial:
        """Return the trial of a value up to a step."""
        return Trial((*self.base[: self.number], value, *self.base[self.number + 1 :]), steps)

    def loss(self, value: float, steps: int) -> float | None:
        """Return the loss of a value at a rung: infinite if its run diverged at any rung, None if it is not known."""
        found = [self.losses.get(self.trial(value, rung)) for rung in self.rungs]
        return math.inf if math.inf in found else self.losses.get(self.trial(value, steps))

    def rounds(self) -> Iterator[tuple[int, list[float]]]:
        """Yield the values that are trained up to each rung, as far as the losses decide it."""
        first = self.rungs[0]
        tried = {trial.point[self.number] for trial in self.losses}
        known = {value: loss for value in tried if (loss := self.loss(value, first)) is not None}
        more = next_value(self.grid, known, self.most_added)
        values = sorted({*self.grid.values, *known, *(() if more is None else (more,))})
        for steps in self.rungs:
            yield steps, values
            losses = {value: self.loss(value, steps) for value in values}
            reached = {value: loss for value, loss in losses.items() if loss is not None}
            if len(reached) < len(values):
                return
            values = better_half(reached)

    @property
    def values(self) -> list[float]:
        """All values that are tried."""
        return next(self.rounds())[1]

    def missing(self) -> list[Trial]:
        """Return the trials that are needed next; none when the value is chosen."""
        *_, (steps, values) = self.rounds()
        return [self.trial(value, steps) for value in values if self.loss(value, steps) is None]

    def over(self, value: float) -> bool:
        """Return True for a value whose run will not be trained further."""
        *_, (_, values) = self.rounds()
        return self.loss(value, self.rungs[-1]) is not None or value not in values

    def _whole(self) -> dict[float, float]:
        """Return the losses after the whole training; infinite for values that did not get there."""
        losses = {value: self.loss(value, self.rungs[-1]) for value in self.values}
        return {value: math.inf if loss is None else loss for value, loss in losses.items()}

    @property
    def chosen(self) -> float | None:
        """The best value after the whole training; None as long as it is not known."""
        return None if self.missing() else best_value(self._whole())

    @property
    def at_end(self) -> bool:
        """True if a better value may lie beyond those that were tried."""
        return at_end(self.grid, self._whole())


def better_half(losses: Mapping[float, float]) -> list[float]:
    """Return the values with the lower losses: the half, rounded up, without those that diverged."""
    finite = sorted((loss, value) for value, loss in losses.items() if math.isfinite(loss))
    return sorted(value for _, value in finite[: math.ceil(len(losses) / 2)])


class Search:
    """The search of all settings of one model. `take` notes a loss; the rest follows from the losses.

    Trials are needed in groups. The losses of a group count when all of them are known, so that the search does not
    depend on the order in which its runs end.
    """

    def __init__(self, grids: Sequence[Grid], rungs: Sequence[int]) -> None:
        self.settings = [grid.setting for grid in grids]
        self.rungs = rungs
        self._grids, self._most_added = grids, MOST_ADDED
        self._losses: dict[Trial, float] = {}
        self._group: dict[Trial, float] = {}  # of the present group, as far as they are known

    def take(self, trial: Trial, loss: float) -> None:
        """Note the loss of a trial that was ready; infinite if it diverged."""
        self._group[trial] = loss
        if not self.ready():
            self._losses |= self._group
            self._group.clear()

    def stages(self) -> list[Stage]:
        """Return the stages that have begun."""
        base = tuple(grid.middle for grid in self._grids)
        found: list[Stage] = []
        for number, grid in enumerate(self._grids):
            stage = Stage(grid, number, base, self.rungs, self._losses, self._most_added)
            found.append(stage)
            if stage.chosen is None:
                break
            base = stage.trial(stage.chosen, 0).point
        return found

    def ready(self) -> list[Trial]:
        """Return the trials that are needed now; none when all settings are chosen."""
        return [trial for trial in self.stages()[-1].missing() if trial not in self._group]

    @property
    def chosen(self) -> Point | None:
        """The best value of each setting; None as long as they are not known."""
        last = self.stages()[-1]
        if last.chosen is None:
            return None
        return last.trial(last.chosen, 0).point

    def predicted(self) -> list[list[Trial]]:
        """Return all trials that are still needed if no grid is widened further.

        They are in groups, each of which begins when the one before it has ended.
        """
        copy = Search(self._grids, self.rungs)
        found: list[list[Trial]] = []
        copy._losses, copy._group, copy._most_added = dict(self._losses), dict(self._group), self._most_added
        while trials := copy.ready():
            found.append(trials)
            for trial in trials:
                copy.take(trial, 0.0)  # which value is better does not change the number of steps
            copy._most_added = 0
        return found
