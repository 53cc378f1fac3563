"""Caches reports by a hash of everything that they depend on, so that a model is checked once.

The hash covers the contract, the layers, ops and backbones, the checks, the modules that define the model's own
classes, the versions of torch and Python, and the config. When any of these changes, the checks run again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import torch

import lmzoo
from lmzoo import configs, registry
from lmzoo.conformance.report import RANKING_GROUPS, Report, Result
from lmzoo.conformance.suite import CHECKS, check_model, check_names
from lmzoo.conformance.tiny import subject
from lmzoo.data.cache import cache_dir
from lmzoo.errors import LmzooError
from lmzoo.model import LanguageModel, ModelConfig
from lmzoo.storage import atomic

PACKAGE = Path(lmzoo.__file__).parent
# The code that a report can depend on: not the trainer, the data or the command line.
PACKAGES = ("state", "layers", "ops", "backbones", "conformance", "generation", "inference", "storage", "transplant")
DEPENDS_ON = ("*.py", *(f"{package}/**/*.py" for package in PACKAGES))


def cached_check(
    target: LanguageModel | type[LanguageModel] | str,
    *,
    only: Collection[str] | None = None,
    listener: Callable[[Result], None] | None = None,
) -> Report:
    """Returns the cached report for the same code and config, or runs `check_model`; calls `listener` in both cases.

    A model instance that is copied with its weights, or whose source cannot be read, is checked each time.
    """
    path = _report_path(target, only)
    if path is not None:
        with suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged: the checks run again
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


def ranking_report(name: str) -> Report:
    """Returns the report of the checks of `RANKING_GROUPS`, which decide whether a model has a rank."""
    return cached_check(name, only=[check.name for check in CHECKS if check.group in RANKING_GROUPS])


def ranking_problem(name: str, report: Report | None = None) -> str:
    """Returns the reason not to rank a model: the failed checks of its `ranking_report`; empty when all pass."""
    report = report or ranking_report(name)
    return "" if report.rankable else f"failed the checks {', '.join(report.failures)}; see lmzoo check {name}"


def key(cls: type[LanguageModel], config: ModelConfig, only: Collection[str] | None = None) -> str | None:
    """Returns the hash of everything that a report of this class and config depends on.

    None when a source file cannot be read.
    """
    digest = hashlib.sha256()
    for pattern in DEPENDS_ON:
        for file in sorted(PACKAGE.glob(pattern)):
            digest.update(str(file.relative_to(PACKAGE)).encode() + b"\0" + file.read_bytes() + b"\0")
    try:
        for name, file in sorted(_sources(cls, config).items()):
            digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    except Exception:  # a class without a source file, or a model that cannot be built on the meta device
        return None
    checks = sorted(check_names() if only is None else only)
    versions = [torch.__version__, sys.version.partition(" ")[0]]
    facts = [cls.__module__, cls.__qualname__, configs.to_dict(config), checks, versions]
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _sources(cls: type[LanguageModel], config: ModelConfig) -> dict[str, Path]:
    """Returns the source files that define the classes of a model and of its layers, and the modules they import.

    Raises an exception for a class whose module has no file.
    """
    with torch.random.fork_rng(devices=[]):
        layers = registry.blank_model(cls, config, device="meta").modules()
    names = {base.__module__ for kind in (cls, type(config), *map(type, layers)) for base in kind.__mro__}
    waiting = [sys.modules[name] for name in sorted(names) if not _is_library(name)]
    found: dict[str, Path] = {}
    while waiting:
        module = waiting.pop()
        if module.__file__ is None:
            raise TypeError(f"{module} has no source file")
        found[module.__name__] = Path(module.__file__)
        for value in vars(module).values():
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if not isinstance(name, str) or name in found or _is_library(name):
                continue
            other = sys.modules.get(name)
            # Imports of other installed packages are not followed: these have versions and change rarely.
            if other is not None and (_package(name) == _package(module.__name__) or not _is_installed(other)):
                waiting.append(other)
    return found


def _package(name: str) -> str:
    return name.partition(".")[0]


def _is_library(name: str) -> bool:
    """True for torch, Python itself, and this package, whose files are hashed by folder."""
    return _package(name) in ("torch", "lmzoo", "builtins") or _package(name) in sys.stdlib_module_names


def _is_installed(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is None or "site-packages" in Path(file).parts or "dist-packages" in Path(file).parts


def _report_path(target: LanguageModel | type[LanguageModel] | str, only: Collection[str] | None) -> Path | None:
    """Returns the cache file of this report, or None when it must not or cannot be cached."""
    checked = subject(target)
    name = None if checked.own is not None else key(checked.cls, checked.config, only)
    if name is None:
        return None
    with suppress(LmzooError):  # without a writable folder the checks run each time
        return cache_dir("checks") / f"{name}.json"
    return None
