"""The report of the checks: one result per check, with the measured value and the time it took."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any


class Fault(Exception):
    """Raised by a check that fails. The message names what is wrong, at which position, by how much, where to look."""


def described(error: Exception) -> str:
    """Returns the type of an exception and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def raised_at(error: Exception) -> str:
    """Returns the innermost source line of an exception outside installed packages, as ` at file.py:12`, or ''."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


@dataclass(frozen=True)
class Result:
    """The result of one check. `saw` is what was measured, or on failure the case that failed."""

    name: str
    group: str  # the theme: "causality", "decoding", "loss", ...
    passed: bool
    saw: str
    seconds: float
    follows: str = ""  # the check that failed before, and from whose failure this one may follow

    @property
    def shown(self) -> str:
        """Returns `saw` for readers: a failure that may follow from another gives no advice where to look."""
        return f"may follow from {self.follows}: {self.saw.split('; look at')[0]}" if self.follows else self.saw


# A model that fails one of these cannot be compared: it sees the future, decodes differently from its forward pass, or
# reports a loss that means something else.
RANKING_GROUPS = ("contract", "causality", "decoding", "loss")


@dataclass(frozen=True)
class Report:
    """All results for one model, in the order the checks ran."""

    name: str
    config: Mapping[str, Any]  # of the small model that was checked
    results: tuple[Result, ...]
    complete: bool = True  # all checks of `RANKING_GROUPS` ran
    seconds: float = 0.0  # from start to end

    @property
    def passed(self) -> bool:
        """True if every check passed."""
        return not self.failures

    @property
    def failures(self) -> list[str]:
        """Names of the checks that failed."""
        return [result.name for result in self.results if not result.passed]

    @property
    def causes(self) -> list[str]:
        """Names of the failed checks without those that may follow from the failure of another."""
        return [result.name for result in self.results if not result.passed and not result.follows]

    @property
    def rankable(self) -> bool | None:
        """True if the checks of contract, causality, decoding and loss passed, without which a comparison is wrong.

        None if those that ran passed, but not all of them ran.
        """
        passed = all(result.passed for result in self.results if result.group in RANKING_GROUPS)
        return passed if self.complete or not passed else None

    def to_dict(self) -> dict[str, Any]:
        """Converts the report to plain values, for JSON."""
        return {
            "schema": 1,
            "model": self.name,
            "config": dict(self.config),
            "passed": self.passed,
            "rankable": self.rankable,
            "failures": self.failures,
            "causes": self.causes,
            "seconds": round(self.seconds, 3),
            "results": [asdict(result) for result in self.results],
        }

    def to_json(self) -> str:
        """Converts the report to JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """Reads a report from the values of `to_dict`."""
        results = tuple(Result(**result) for result in values["results"])
        return cls(values["model"], values["config"], results, values["rankable"] is not None, values["seconds"])

    def __repr__(self) -> str:
        return f"<checks of {self._verdict}>"

    def _repr_html_(self) -> str:
        """Returns the report as a table, for notebooks."""
        rows = "".join(
            f"<tr><td>{'pass' if result.passed else '<b>FAIL</b>'}</td><td>{escape(result.name)}</td>"
            f'<td style="text-align: left">{escape(result.shown)}</td></tr>'
            for result in self.results
        )
        return f"<p>{escape(self._verdict)}</p><table>{rows}</table>"

    @property
    def _verdict(self) -> str:
        verdict = "all checks passed" if self.passed else f"failed: {', '.join(self.causes)}"
        others = [name for name in self.failures if name not in self.causes]
        verdict += f"; may follow: {', '.join(others)}" if others else ""
        return f"{self.name}: {verdict} ({len(self.results)} checks, {self.seconds:.1f} s)"

    def __str__(self) -> str:
        lines = [f"{'pass' if r.passed else 'FAIL'}  {r.name}: {r.shown}" for r in self.results]
        return "\n".join([*lines, self._verdict])
