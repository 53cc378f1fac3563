"""Invented results for the tests of table and file: every kind of entry."""

from __future__ import annotations

from lmzoo.data.probes import PROBES
from lmzoo.probing.results import CellResult, Results, describe


def cell(model: str, probe: str, seed: int = 1, trained: float | None = 1.0, tested: float | None = 0.5) -> CellResult:
    status = "trained" if trained is not None else "diverged"
    return CellResult(
        model=model,
        probe=probe,
        difficulty="easy",
        seed=seed,
        status=status,  # type: ignore[arg-type]
        problem="" if trained is not None else "the loss is nan",
        accuracy_trained=trained,
        accuracy_tested=tested,
        curve=[[10, 0.5]],
    )


def example() -> Results:
    return Results(
        levels=[describe(PROBES[name], "easy") for name in ("mqar", "parity")],
        cells=[
            cell("solver", "mqar", 1, 1.0, 0.99),
            cell("solver", "mqar", 2, 1.0, 0.981),
            cell("solver", "parity", 1, 1.0, 0.51),
            cell("solver", "parity", 2, 1.0, 0.53),
            cell("guesser", "mqar", 1, 0.25, 0.6),
            cell("guesser", "parity", 1, None, None),
        ],
        hardware={"device": "a processor"},
        versions={"lmzoo": "0.1.0"},
    )
