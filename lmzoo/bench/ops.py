"""Measures each form of the sequence algorithms that a model uses, on this machine: forward and backward.

The arguments are those with which the model itself calls the algorithm on random tokens, in bf16 autocast on a GPU that
supports it, as in training. The forms are timed in turns. Legend: B rows, T time.
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
from lmzoo.ops.kernels import kernels_used
from lmzoo.train.precision import autocast, resolve_precision

LENGTHS = (1, 16, 64, 256, 512, 1024, 2048)
ROWS = 8
BLOCK_SECONDS = 0.02  # a form is run as often as fits into this time, and timed as a whole
REPEATS = 5
FEW_REPEATS, LONG_SECONDS = 3, 0.5  # fewer rounds where a form takes longer than this
MOST_BYTES = 3 << 30  # a definition that keeps more for its backward pass is not run on longer sequences

Progress = Callable[[str], object]  # gets what is measured now


class Call(NamedTuple):
    """A call of an algorithm by a model."""

    choice: Choice
    args: tuple[Any, ...]


def ops_of(model: LanguageModel, T: int, rows: int = ROWS) -> dict[str, Call]:
    """Returns the first call of each algorithm in a forward pass over random tokens, by the algorithm's name."""
    calls: dict[str, Call] = {}
    idx_BT = torch.randint(model.config.vocab_size, (rows, T), generator=torch.Generator().manual_seed(0))
    watching = watch(lambda choice, args: calls.setdefault(choice.name, Call(choice, args)))
    with watching, torch.no_grad(), autocast(model.device, precision_of(model)):
        model.features(idx_BT.to(model.device))
    return calls


def precision_of(model: LanguageModel) -> str:
    """Returns the precision in which the algorithms are measured: the one of training on a GPU, float32 on a CPU."""
    return resolve_precision("auto", model, ROWS) if model.device.type == "cuda" else "float32"


def bench_ops(
    model: LanguageModel,
    lengths: Sequence[int] = LENGTHS,
    *,
    rows: int = ROWS,
    repeats: int = REPEATS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measures the forms of the algorithms that `model` uses, as JSON values.

    Each result has the name of the algorithm (`op`), the length (`T`), the milliseconds of the definition (`naive_ms`,
    None where it would need too much memory), of the fast form (`fast_ms`) and of a kernel of another package
    (`kernel_ms`, None without one), medians of `repeats` rounds, the form that the dispatcher takes (`form`), `why`,
    and `slowdown`, the time of this form divided by the time of the fastest one.
    """
    results: list[dict[str, Any]] = []
    too_large: set[str] = set()
    for T in sorted(lengths):
        for name, (choice, args) in ops_of(model, T, rows).items():
            if progress is not None:
                progress(f"{name}, {T} tokens")
            forms = {"naive": choice.naive, "fast": choice.fast}
            if name in too_large and choice.form(T) is not choice.naive:
                del forms["naive"]
            elif saved_bytes(choice.naive, args) > MOST_BYTES:
                too_large.add(name)
            if choice.kernel.form is not None:
                forms["kernel"] = choice.kernel.form
            ms = {which: 1e3 * seconds for which, seconds in time_forms(forms, args, repeats).items()}
            times = {f"{which}_ms": ms.get(which) for which in ("naive", "fast", "kernel")}
            taken = next(which for which in forms if forms[which] is choice.form(T))
            slowdown = ms[taken] / min(ms.values())
            chosen = {"form": choice.form_name(T), "why": choice.reason(T), "slowdown": slowdown}
            results.append({"op": name, "T": T, **times, **chosen})
    results.sort(key=lambda entry: entry["op"])  # stable: lengths stay in order
    machine = {**hardware(model.device), **versions(), "kernels": kernels_used(model.device)}
    measured = {"rows": rows, "repeats": repeats, "precision": precision_of(model)}
    return {**measured, "results": results, "machine": machine}


def time_forms(forms: Mapping[str, Callable[..., Any]], args: Iterable[Any], repeats: int) -> dict[str, float]:
    """Returns the median seconds of forward and backward of each form; they take turns, in blocks of several runs.

    A form that takes long is timed in at most `FEW_REPEATS` rounds.
    """
    args = tuple(args)
    devices = {x.device for x in args if isinstance(x, Tensor) and x.device.type == "cuda"}

    def seconds_of(work: Callable[[], None], times: int = 1) -> float:
        def block() -> None:
            for _ in range(times):
                work()
            for device in devices:
                torch.cuda.synchronize(device)

        return timed(block) / times

    works = {name: forward_backward(form, args) for name, form in forms.items()}
    sizes = {}
    for name, work in works.items():
        first = seconds_of(work)
        sizes[name] = 1 if first > LONG_SECONDS else max(1, round(BLOCK_SECONDS / seconds_of(work)))
    spent: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats):
        if number >= FEW_REPEATS and any(seconds[0] > LONG_SECONDS for seconds in spent.values()):
            break
        for name, work in list(works.items())[:: -1 if number % 2 else 1]:
            spent[name].append(seconds_of(work, sizes[name]))
    return {name: median(values) for name, values in spent.items()}


def saved_bytes(form: Callable[..., Any], args: Iterable[Any]) -> int:
    """Returns the bytes that the form keeps for its backward pass, its arguments included."""
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        _output = form(*_leaves(args))  # held, so that no memory is used twice
    return sum(kept.values())


def forward_backward(form: Callable[..., Any], args: Iterable[Any]) -> Callable[[], None]:
    """Returns a function that runs the form, and the backward pass of its first output to all floating arguments."""
    leaves = _leaves(args)
    wanted = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]
    with torch.no_grad():
        gradient = torch.randn_like(_first(form(*leaves)))

    def run() -> None:
        torch.autograd.grad(_first(form(*leaves)), wanted, gradient, allow_unused=True)

    return run


def _leaves(args: Iterable[Any]) -> list[Any]:
    """Returns the arguments, with copies that require a gradient in place of floating tensors."""
    return [x.detach().clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x for x in args]


def _first(output: Tensor | Sequence[Tensor]) -> Tensor:
    """Returns the first output of a form, or its only one."""
    return output if isinstance(output, Tensor) else output[0]
