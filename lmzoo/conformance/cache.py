"""Reports kept by what they depend on, so that the price of the checks is paid once for a model.

A report holds for the code it was made with: the contract, the layers and ops, the checks, the model's own modules,
torch's version, and the config. All of it goes into one hash; whatever of it changes, the checks run again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import torch

import lmzoo
from lmzoo import configs
from lmzoo.conformance.report import RANKING_GROUPS, Report, Result
from lmzoo.conformance.suite import CHECKS, check_model, check_names
from lmzoo.conformance.tiny import subject
from lmzoo.data.cache import cache_dir
from lmzoo.errors import LmzooError
from lmzoo.model import LanguageModel
from lmzoo.storage import atomic

PACKAGE = Path(lmzoo.__file__).parent
# What a verdict can depend on. The trainer, the data and the command line are not here.
DEPENDS_ON = ("*.py", "layers/**/*.py", "ops/**/*.py", "conformance/**/*.py", "generation/**/*.py")


def cached_check(
    target: LanguageModel | type[LanguageModel] | str,
    *,
    only: Collection[str] | None = None,
    listener: Callable[[Result], None] | None = None,
) -> Report:
    """`check_model`, or the report it gave before for the same code and config; `listener` hears the results alike.

    A model whose source cannot be read, or that comes with weights of its own, is checked each time.
    """
    path = _place(target, only)
    if path is not None:
        with suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged: made again
            report = Report.from_dict(json.loads(path.read_text(encoding="utf-8")))
            for result in report.results:
                if listener is not None:
                    listener(result)
            return report
    report = check_model(target, only=only, listener=listener)
    if path is not None:
        with suppress(LmzooError):
            atomic.write_file(path, report.to_json())
    return report


def ranking_problem(name: str) -> str:
    """Why a model's loss may mean nothing, by the checks that matter to a comparison; empty when nothing is wrong."""
    only = [check.name for check in CHECKS if check.group in RANKING_GROUPS]
    report = cached_check(name, only=only)
    return "" if report.rankable else f"failed the checks {', '.join(report.failures)}; see lmzoo check {name}"


def key(cls: type[LanguageModel], config: object, only: Collection[str] | None = None) -> str | None:
    """The hash of all that a report of this class and config depends on; None when a source cannot be read."""
    digest = hashlib.sha256()
    for pattern in DEPENDS_ON:
        for file in sorted(PACKAGE.glob(pattern)):
            digest.update(str(file.relative_to(PACKAGE)).encode() + b"\0" + file.read_bytes() + b"\0")
    for base in cls.__mro__:
        module = sys.modules.get(base.__module__)
        if module is None or base.__module__.partition(".")[0] in ("builtins", "abc", "torch", "typing"):
            continue
        try:
            digest.update(inspect.getsource(module).encode() + b"\0")
        except (OSError, TypeError):
            return None
    checks = sorted(check_names() if only is None else only)
    versions = [torch.__version__, sys.version.partition(" ")[0]]
    facts = [cls.__module__, cls.__qualname__, configs.to_dict(config), checks, versions]
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _place(target: LanguageModel | type[LanguageModel] | str, only: Collection[str] | None) -> Path | None:
    """The file for this report, or None when there can be none."""
    checked = subject(target)
    name = None if checked.instance is not None else key(checked.cls, checked.config, only)
    if name is None:
        return None
    with suppress(LmzooError):  # a place that cannot be written costs the cache, nothing else
        return cache_dir("checks") / f"{name}.json"
    return None
