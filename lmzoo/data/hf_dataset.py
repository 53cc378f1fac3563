"""A Hugging Face dataset, from the Hub or from local files, streamed as rows of text.

The optional package `datasets` is imported only here, when a dataset is opened. It never runs code of a dataset.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from lmzoo.errors import CheckpointError, DataError

PREFIX = "hf:"
OPTIONS = ("config", "split", "column", "revision")
FORMATS = ("parquet", "arrow", "json", "csv", "text")  # the readers of `datasets` that yield rows with text
VALIDATION_SPLITS = ("validation", "valid", "val", "dev", "test")  # the first one that exists is used
_GRAMMAR = f"{PREFIX}NAME[,{'=...][,'.join(OPTIONS)}=...]"


@dataclass(frozen=True)
class DatasetSpec:
    """The parts of `hf:NAME,config=...,split=...,column=...,revision=...`; missing parts get defaults on opening."""

    name: str
    options: dict[str, str] = field(default_factory=dict)


def is_streamed(data: str) -> bool:
    """True if `data`, a value of `--data`, names a dataset to stream."""
    return isinstance(data, str) and data.startswith(PREFIX)


def parse_spec(data: str) -> DatasetSpec:
    """Read `hf:NAME[,KEY=VALUE]...`. Raises `DataError` that names the part and the rule."""
    name, *assignments = data.removeprefix(PREFIX).split(",")
    if not name:
        raise DataError(f"data={data!r} names no dataset: it must have the form {_GRAMMAR}")
    options: dict[str, str] = {}
    for assignment in assignments:
        key, _, value = assignment.partition("=")
        if key not in OPTIONS:
            from lmzoo.configs import suggest  # imported here, so that commands that do not stream start faster

            raise DataError(f"data={data!r}: {key!r} is not an option of {PREFIX}{suggest(key, OPTIONS)}")
        if not value or key in options:
            raise DataError(f"data={data!r}: {key} must have one value: {_GRAMMAR}")
        options[key] = value
    return DatasetSpec(name, options)


class HFDataset:
    """An open dataset: its text column, its training split, and its validation split if it has one.

    `separator` is placed after each document: an empty line, or, for plain text files, whose rows are their lines, a
    newline, which restores the text of the file. `files` identifies the source files: by base name and size if they
    are local, else by a URL, which contains the revision.
    """

    def __init__(self, data: str) -> None:
        """Open what `data` ("hf:...") names. Raises `DataError` (one line) if it cannot."""
        spec = parse_spec(data)
        self.data = data
        self._builder = _builder(data, spec)
        reader = type(self._builder).__module__.rpartition(".")[2]
        if reader not in FORMATS:
            raise DataError(f"data={data!r} is read as {reader}: it must be one of {', '.join(FORMATS)}")
        self.separator = "\n" if reader == "text" else "\n\n"
        splits = self._streams()
        self.split = _chosen(data, "split", spec.options.get("split"), list(splits), "train")
        self.validation = next((s for s in VALIDATION_SPLITS if s in splits and s != self.split), None)
        self.column = _chosen(
            data, "column", spec.options.get("column"), self._text_columns(splits[self.split]), "text"
        )
        _require_inside(spec.name, self._builder)
        self.files = [
            _identity(str(file))
            for split, files in self._builder.config.data_files.items()
            if split in (self.split, self.validation)
            for file in files
        ]

    def texts(self, split: str, place: Place | None = None, skip: int = 0) -> Texts:
        """Returns the documents of `split`, from `place` on or from the beginning, without the first `skip` rows.

        Raises `CheckpointError` for a place that does not exist in this dataset.
        """
        return Texts(self.data, self.column, self._streams()[split].select_columns([self.column]), place, skip)

    def _streams(self) -> dict[str, Any]:
        try:
            return {str(split): stream for split, stream in self._builder.as_streaming_dataset().items()}
        except Exception as error:
            raise _cannot_open(self.data, error) from error

    def _text_columns(self, stream: Any) -> list[str]:
        """The columns that hold strings; reads one row if the reader does not know its columns in advance."""
        if stream.features is None:
            try:
                row: dict[str, Any] = next(iter(stream), {})
            except Exception as error:
                raise _cannot_open(self.data, error) from error
            return [name for name, value in row.items() if isinstance(value, str)]
        dtypes = {name: getattr(feature, "dtype", None) for name, feature in stream.features.items()}
        return [name for name, dtype in dtypes.items() if dtype in ("string", "large_string")]


@dataclass(frozen=True)
class Place:
    """The position before row `row` of a split; `library` is the state of `datasets` there, None at the start."""

    row: int
    library: dict[str, Any] | None


class Texts(Iterator[str]):
    """Iterates over the documents of a split; a missing text is an empty one. `place` is before the next document."""

    def __init__(self, data: str, column: str, stream: Any, place: Place | None, skip: int) -> None:
        """`stream` is a `datasets.IterableDataset` with no other reader."""
        if place is not None and place.library is not None:
            if not _same_form(stream.state_dict(), place.library):
                raise CheckpointError(
                    "library is not a position in this dataset, or comes from another version of datasets"
                )
            stream.load_state_dict(place.library)
            skip = 0
        else:
            place = Place(skip, None)
        self._data, self._column, self._stream = data, column, stream
        self._iterator: Generator[dict[str, Any]] = iter(stream)
        self._skip = skip
        self.place: Place = place

    def __next__(self) -> str:
        """Raises `DataError` naming the row that cannot be read."""
        row, skip, self._skip = self.place.row, self._skip, 0
        try:
            found = next(islice(self._iterator, skip, None), None)
        except Exception as error:  # the library raises many types: for the network, for file formats, ...
            raise DataError(f"{self._data}: row {row} cannot be read: {_one_line(error)}") from error
        if found is None:
            raise StopIteration
        text = found[self._column]
        if text is not None and not isinstance(text, str):
            raise DataError(f"{self._data}: row {row}: {self._column}={text!r:.40} must be a text")
        self.place = Place(row + 1, self._stream.state_dict())
        return text or ""

    def close(self) -> None:
        """Close the files."""
        self._iterator.close()


def _builder(data: str, spec: DatasetSpec) -> Any:
    """The dataset builder of `datasets`. For a file, its folder is opened, and its suffix selects the reader."""
    try:
        library = importlib.import_module("datasets")
    except ImportError:
        raise DataError(f"data={data!r} needs datasets: pip install '.[hf-data]' in the checkout") from None
    _require_regular(spec.name)
    place: dict[str, Any] = {"path": spec.name}
    if os.path.isfile(spec.name):
        folder, file = os.path.split(os.path.abspath(spec.name))
        place = {"path": folder, "data_files": file}
    names = {"name": spec.options.get("config"), "revision": spec.options.get("revision")}
    try:
        return library.load_dataset_builder(**place, **{key: value for key, value in names.items() if value})
    except Exception as error:
        raise _cannot_open(data, error) from error


def _chosen(data: str, key: str, given: str | None, there: list[str], usual: str) -> str:
    """Returns `wanted` if it is given, else the usual name, else the only one."""
    wanted = given or (there[0] if len(there) == 1 else usual)
    if wanted not in there:
        found = ", ".join(there) or "none"
        what = "column of texts" if key == "column" else key
        raise DataError(f"data={data!r} has no {what} {wanted!r}; it has: {found}; choose with ,{key}=NAME")
    return wanted


def _same_form(ours: object, given: object) -> bool:
    """True if `given` has the keys and types of `ours`, a state of `datasets`, so that `datasets` can load it."""
    if isinstance(ours, dict):
        same = isinstance(given, dict) and ours.keys() == given.keys()
        return same and all(_same_form(ours[key], given[key]) for key in ours)
    if ours is None:  # changes while reading, to another state of the same kind
        return given is None or isinstance(given, dict)
    if type(ours) is int:
        return type(given) is int and given >= 0
    return ours == given


def _identity(file: str) -> str:
    return f"{os.path.basename(file)} {os.path.getsize(file)}" if os.path.isfile(file) else file


def _require_regular(folder: str) -> None:
    """Raise `DataError` if a local folder holds a pipe or the like: the library would wait for it."""
    for place, _, names in os.walk(folder):
        for path in (os.path.join(place, name) for name in names):
            if os.path.exists(path) and not os.path.isfile(path):
                raise DataError(f"{path}: cannot be read: it is not a regular file")


def _require_inside(name: str, builder: Any) -> None:
    """Raise `DataError` if the settings of a local folder, such as its README, name a file outside the folder."""
    if not os.path.isdir(name):
        return
    folder = os.path.join(os.path.abspath(name), "")
    for listed in builder.config.data_files.values():
        for file in map(str, listed):
            if "://" in file or not os.path.abspath(file).startswith(folder):
                raise DataError(f"{name}: its README names {file}, which is outside of the folder")


def _cannot_open(data: str, error: Exception) -> DataError:
    return DataError(f"data={data!r} cannot be opened: {_one_line(error)}")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
