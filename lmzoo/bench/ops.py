"""Measures each form of the sequence algorithms that a model uses, on this machine: forward and backward.

The arguments are those with which the model itself calls the algorithm on random tokens. The forms are timed in turns.
Legend: B rows, T time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmzoo.hardware import hardware, timed, versions
from lmzoo.model import LanguageModel
from lmzoo.ops.dispatch import Choice, watch

LENGTHS = (1, 16, 64, 256, 512, 1024, 2048)
ROWS = 8
BLOCK_SECONDS = 0.02  # a form is run as often as fits into this time, and timed as a whole
REPEATS = 5
FEW_REPEATS, LONG_SECONDS = 3, 0.5  # fewer rounds where a form takes longer than this

Progress = Callable[[str], object]  # gets what is measured now


class Call(NamedTuple):
    """A call of an algorithm by a model."""

    choice: Choice
    args: tuple[Any, ...]


def ops_of(model: LanguageModel, T: int, rows: int = ROWS) -> dict[str, Call]:
    """Returns the first call of each algorithm in a forward pass over random tokens, by the algorithm's name."""
    calls: dict[str, Call] = {}
    idx_BT = torch.randint(model.config.vocab_size, (rows, T), generator=torch.Generator().manual_seed(0))
    with watch(lambda choice, args: calls.setdefault(choice.name, Call(choice, args))), torch.no_grad():
        model.features(idx_BT.to(model.device))
    return calls


def bench_ops(
    model: LanguageModel,
    lengths: Sequence[int] = LENGTHS,
    *,
    rows: int = ROWS,
    repeats: int = REPEATS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measures the forms of the algorithms that `model` uses, as JSON values.

    Each result has the name of the algorithm (`op`), the length (`T`), the milliseconds of the definition (`naive_ms`)
    and of the fast form (`fast_ms`), medians of `repeats` rounds, the form that the dispatcher takes (`form`), `why`,
    and `slowdown`, the time of this form divided by the time of the faster one.
    """
    results: list[dict[str, Any]] = []
    for T in lengths:
        for name, (choice, args) in ops_of(model, T, rows).items():
            if progress is not None:
                progress(f"{name}, {T} tokens")
            seconds = time_forms({"naive": choice.naive, "fast": choice.fast}, args, repeats)
            form = choice.form(T)
            entry: dict[str, Any] = {"op": name, "T": T}
            entry |= {f"{which}_ms": 1e3 * spent for which, spent in seconds.items()}
            spent = seconds["naive" if form is choice.naive else "fast"]
            slowdown = spent / min(seconds.values())
            results.append({**entry, "form": form.__name__, "why": choice.reason(T), "slowdown": slowdown})
    results.sort(key=lambda entry: entry["op"])  # stable: lengths stay in order
    return {"rows": rows, "repeats": repeats, "results": results, "machine": {**hardware(model.device), **versions()}}


def time_forms(forms: Mapping[str, Callable[..., Any]], args: Iterable[Any], repeats: int) -> dict[str, float]:
    """Returns the median seconds of forward and backward of each form; they take turns, in blocks of several runs.

    A form that takes long is timed in at most `FEW_REPEATS` rounds.
    """
    args = tuple(args)
    works = {name: forward_backward(form, args) for name, form in forms.items()}
    sizes = {}
    for name, work in works.items():
        first = timed(work)
        sizes[name] = 1 if first > LONG_SECONDS else max(1, round(BLOCK_SECONDS / timed(work)))
    spent: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats):
        if number >= FEW_REPEATS and any(seconds[0] > LONG_SECONDS for seconds in spent.values()):
            break
        for name, work in list(works.items())[:: -1 if number % 2 else 1]:
            seconds = timed(lambda work=work, name=name: [work() for _ in range(sizes[name])])
            spent[name].append(seconds / sizes[name])
    return {name: median(values) for name, values in spent.items()}


def forward_backward(form: Callable[..., Any], args: Iterable[Any]) -> Callable[[], None]:
    """Returns a function that runs the form, and the backward pass of its first output to all floating arguments."""
    leaves = [
        x.detach().clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x for x in args
    ]
    wanted = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]
    with torch.no_grad():
        gradient = torch.randn_like(form(*leaves)[0])

    def run() -> None:
        torch.autograd.grad(form(*leaves)[0], wanted, gradient, allow_unused=True)

    return run
