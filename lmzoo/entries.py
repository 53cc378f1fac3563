"""Entries of the registry: facts, presets and recipe of each family, from TOML; its card, from Markdown.

They lie in folders `<family>/` with `presets.toml` and `card.md`: those of lmzoo, of installed packages, and of the
user. Importing this module does not import torch.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from lmzoo import configs, files, humanize
from lmzoo.errors import ConfigError

EXTRA_FOLDERS = "LMZOO_REGISTRY"  # environment variable: additional folders like registry/, separated as in PATH
PACKAGE_FOLDER = "registry"  # in a package that provides families: its folder with their entries
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")  # of a family and of a preset


@dataclass(frozen=True)
class Preset:
    """A named configuration of a family: settings of the model, a training recipe, and the source of the numbers."""

    name: str
    source: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """The entry of an architecture in `registry/<family>/`.

    `facts` holds title, summary, year, paper and traits; `train` is the training recipe, which a preset may override;
    `docstring` is that of the class of a plug-in.
    """

    name: str
    folder: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Preset] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    docstring: str = ""

    @property
    def card(self) -> str:
        """The text of card.md, or the docstring of a model that has none."""
        return self._text("card.md") or humanize.plain(self.docstring, keep="\n\t")

    @property
    def papers(self) -> str:
        """The text of papers.bib, the papers of the family in BibTeX; empty if there is none."""
        return self._text("papers.bib")

    @property
    def results(self) -> Mapping[str, Any]:
        """The figures in results.json, the measured results; empty if there is none. Raises `ConfigError`."""
        text = self._text("results.json")
        try:
            found = files.parse_json(text) if text else {}
        except ValueError as error:
            raise ConfigError(f"{self.folder}/results.json: {error}") from None
        if not isinstance(found, dict):
            raise ConfigError(f"{self.folder}/results.json must hold an object")
        return found

    def _text(self, name: str) -> str:
        """Return the text of a file of the entry, empty if there is none. Raises `ConfigError`."""
        path = self.folder / name if self.folder else None
        if path is None or not os.path.lexists(path):
            return ""
        try:
            return humanize.plain(files.read_text(path, files.SETTINGS_BYTES), keep="\n\t")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {files.reason(error)}") from None
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from None


def folders() -> list[Path]:
    """Return the registry folder of lmzoo (inside a wheel, or beside the package in a checkout), then the user's.

    Raises `ConfigError` for a folder of the user that does not exist.
    """
    package = Path(__file__).parent
    own = next((f for f in (package / "_registry", package.parent / "registry") if f.is_dir()), None)
    extra = [Path(folder) for folder in os.environ.get(EXTRA_FOLDERS, "").split(os.pathsep) if folder]
    for folder in extra:
        if not os.path.isdir(folder):
            raise ConfigError(f"{EXTRA_FOLDERS}: {folder} is not a folder")
    return ([own] if own else []) + extra


@cache
def package_folder(package: str) -> Path | None:
    """Return the folder with the entries of an installed package, without importing it; None if it has none."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # a package that is broken, or was made without a spec
        return None
    places = (spec.submodule_search_locations if spec else None) or ()
    return next((folder for place in places if (folder := Path(place) / PACKAGE_FOLDER).is_dir()), None)


@cache
def read(folders: tuple[Path, ...]) -> dict[str, Family]:
    """Return all entries by family; a later folder adds presets to an earlier one and may replace them."""
    found: dict[str, Family] = {}
    for folder in folders:
        for path in sorted(folder.glob("*/presets.toml")):
            entry = replace(parse(path, configs.load_toml(path)), name=path.parent.name, folder=path.parent)
            before = found.get(entry.name)
            found[entry.name] = entry if before is None else replace(merged(before, entry), folder=before.folder)
    return found


def merged(first: Family, second: Family) -> Family:
    """Return the entry `second`, completed by the facts, presets and recipe of `first`."""
    presets = {**first.presets, **second.presets}
    return replace(
        second,
        facts={**first.facts, **second.facts},
        presets={name: presets[name] for name in sorted(presets, key=natural)},
        train={**first.train, **second.train},
    )


def parse(path: Path | str, tables: Mapping[str, Any]) -> Family:
    """Return the entry in the tables of a presets.toml. Raises `ConfigError` that names `path`, where they are from."""
    if not isinstance(tables, Mapping):
        raise ConfigError(f"{path}: {tables!r} must be a mapping of names to tables")
    tables = dict(tables)
    facts = dict(_table(path, "family", tables.pop("family", {})))
    train = _table(path, "family.train", facts.pop("train", {}))
    facts = {key: _fact(path, key, value) for key, value in facts.items()}
    presets = {}
    for name, table in tables.items():
        unknown = set(table) - {"source", "model", "train"} if isinstance(table, dict) else {name}
        if unknown:
            raise ConfigError(f"{path}: preset {name!r} may hold source, model and train, not {sorted(unknown)}")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError(f"{path}: preset {name!r} must be lower-case letters, digits, '-' and '_'")
        source = table.get("source", "")
        if not isinstance(source, str):
            raise ConfigError(f"{path}: {name}.source={source!r} must be a text")
        settings = {part: _table(path, f"{name}.{part}", table.get(part, {})) for part in ("model", "train")}
        presets[name] = Preset(name, humanize.line(source), settings["model"], settings["train"])
    ordered = {name: presets[name] for name in sorted(presets, key=natural)}
    return Family("", facts=facts, presets=ordered, train=train)


def _table(path: Path | str, name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {name}={value!r} must be a table")
    return value


def _fact(path: Path | str, name: str, value: object) -> object:
    """Returns a fact of a family; text is shown to users, so it must not control their terminal."""
    if not isinstance(value, (str, int, float)):
        raise ConfigError(f"{path}: family.{name}={value!r} must be a text, a number, true or false")
    return humanize.line(value) if isinstance(value, str) else value


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that compares digits as numbers and puts words first: tiny, 1m, 10m, 124m."""
    parts = re.findall(r"\d+|[^\d.]+|\.", name)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
