"""Tests of many small cases in one pytest item, where pytest's own work for an item takes longer than the case."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch


def each_case(names: str, values: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Call a test with each of `values`, as `pytest.mark.parametrize` does, but as one test; can be stacked.

    Each case begins with the same random state. A failure names its case. Fixtures of one test are shared by its cases.
    """
    keys, cases = [name.strip() for name in names.split(",")], [*values]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def all_cases(**fixtures: Any) -> None:
            for case in cases:
                given = dict(zip(keys, case if len(keys) > 1 else [case], strict=True))
                torch.manual_seed(0)
                try:
                    test(**fixtures, **given)
                except BaseException as error:  # also what pytest.fail raises
                    error.add_note(f"in the case {given}")
                    raise

        signature = inspect.signature(test)
        kept = [parameter for name, parameter in signature.parameters.items() if name not in keys]
        all_cases.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        return all_cases

    return decorate
