"""Training corpora, opened by name, file, directory or glob pattern, and read in chunks so that any size fits."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Literal

from lmzoo.data.bundled import BUNDLED
from lmzoo.data.download import DOWNLOADS, downloaded
from lmzoo.data.embedded import EMBEDDED, embedded, origin
from lmzoo.data.hf_dataset import is_streamed
from lmzoo.data.near_duplicates import NearDuplicates, find_near_duplicates
from lmzoo.data.synthetic import SOURCES, source_text
from lmzoo.data.text import SEPARATOR, Span, file_span, read_text, scan, split_at, unreadable
from lmzoo.errors import DataError

Split = Literal["train", "val"]

TRAIN_FRACTION = 0.9
# Documents are not cut if the end of one leaves a share between these to the training split.
TRAIN_FRACTIONS = (0.85, 0.95)
# Files with these suffixes are read from a directory: prose, then code.
PROSE_SUFFIXES = (".txt", ".text", ".md", ".rst", ".tex", ".html", ".xml", ".json", ".jsonl", ".csv", ".tsv")
CODE_SUFFIXES = (".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".java", ".js", ".ts", ".go", ".rs", ".rb")
TEXT_SUFFIXES = frozenset((*PROSE_SUFFIXES, *CODE_SUFFIXES, ".sh", ".toml", ".yaml", ".yml"))
VAL_NAMES = ("val.txt", "validation.txt")


@dataclass(frozen=True)
class TextPart:
    """One split of a corpus: its text, in chunks, its length, and its documents (a cut one counts)."""

    spans: tuple[Span, ...]
    n_bytes: int
    n_chars: int
    documents: tuple[Span, ...]

    @property
    def n_documents(self) -> int:
        """The number of its documents."""
        return len(self.documents)

    def chunks(self) -> Iterator[str]:
        """Yields the text in chunks of at most 1 MiB that never cut a character; newlines are unchanged."""
        return read_text(self.spans)

    def document_chunks(self) -> Iterator[Iterator[str]]:
        """Yields each document in chunks, with the separator that follows it; together they are the whole text."""
        # A cut between two documents can leave a part of the separator before the first or after the last one.
        before = [span for span in self.spans[:1] if isinstance(span.source, bytes)]
        after = [span for span in self.spans[-1:] if isinstance(span.source, bytes)]
        last = len(self.documents) - 1
        for number, document in enumerate(self.documents):
            between = [Span(SEPARATOR, 0, len(SEPARATOR))] if number < last else after
            yield read_text([*(before if number == 0 else []), document, *between])


@dataclass(frozen=True)
class Corpus:
    """A text with a training and a validation split.

    `name` is shown to users; `sha256` is the hash of all its UTF-8 bytes; `n_bytes` and `n_chars` are its total
    length. `train` and `val` are the splits. `origin` is not empty if other machines may have another text under this
    name; it says what the text was built from. `near_duplicates` is what was removed from `val`, but not
    from the whole text; None if nothing was searched for.
    """

    name: str
    n_bytes: int
    n_chars: int
    sha256: str
    spans: tuple[Span, ...]
    train: TextPart
    val: TextPart
    origin: str = ""
    near_duplicates: NearDuplicates | None = None

    @property
    def val_sha256(self) -> str:
        """The hash of the text of `val` if near-duplicates were removed from it, else ""."""
        return self.near_duplicates.rest_sha256 if self.near_duplicates else ""

    def chunks(self, split: Split | None = None) -> Iterator[str]:
        """Yields the text of a split, or of the whole corpus, in chunks of at most 1 MiB that never cut a character."""
        if split is None:
            return read_text(self.spans)
        return (self.train if split == "train" else self.val).chunks()


def corpus_names() -> list[str]:
    """Returns the names that `load_corpus` knows, sorted."""
    return sorted([*BUNDLED, *EMBEDDED, *DOWNLOADS, *SOURCES])


def is_pattern(spec: str) -> bool:
    """True if `load_corpus` would look for files that match `spec`."""
    return glob.has_magic(spec) and not is_streamed(spec) and not os.path.exists(spec)


def refuse_stream(spec: str) -> None:
    """Raise DataError if `spec` names a stream and the caller needs a corpus of known length."""
    if is_streamed(spec):
        raise DataError(f"{spec!r} is a stream, but a text of known length is needed: give a file or a directory")


def require_name(spec: str) -> None:
    """Raise DataError unless `spec` is a text that config.toml can record."""
    if not isinstance(spec, str):
        raise DataError(f"data={spec!r} must be the name of a corpus, a file, a directory or a pattern")
    try:
        spec.encode()
    except UnicodeEncodeError:
        raise DataError(f"data={spec!r}: the name is not UTF-8: rename it") from None
    if "\0" in spec:
        raise DataError(f"data={spec!r} has a NUL character")


def load_corpus(spec: str, *, keep_near_duplicates: bool = False) -> Corpus:
    """Open a corpus: reads it to check, count and hash it, without holding the whole text in memory.

    `spec` is one of
    - a name of `corpus_names()`: built into lmzoo, made by a synthetic source, or downloaded once and cached (a file of
      the same name is `./NAME`);
    - a file of UTF-8 text, with any suffix;
    - a directory: with `train.txt` and `val.txt` (or `validation.txt`) in it, these two are the splits and all other
      files are ignored; otherwise every file below it with a suffix in `TEXT_SUFFIXES`, sorted by relative path; hidden
      files and folders (".name") and empty files are left out;
    - a pattern (`*`, `?`, `[...]`, and `**` for any depth): every file that matches, sorted by path.

    Several files are joined by an empty line. Unless the corpus has its own split, the first 90 % are the training
    split and the rest is the validation split. The cut is the one nearest to 90 % of the bytes that lies between two
    documents (files; for the built-in corpora docstrings, topics or modules). If it would be below 85 % or above 95 %,
    as in a single file, the text is cut after 90 % of its characters, rounded down.

    Of several files, those of the validation split that nearly equal one of the training split are left out of it (see
    `near_duplicates`), unless `keep_near_duplicates`; not if the directory has its own split.

    Raises DataError (one line) for an unknown name, a missing, empty, unreadable, binary or non-UTF-8 file, a
    directory without text, a pattern without matches, a download that fails, a stream (`hf:...`), and a validation
    split of near-duplicates alone.
    """
    refuse_stream(spec)
    require_name(spec)
    if spec in EMBEDDED:
        return replace(_from_documents(spec, embedded(spec)), origin=origin())
    if spec in BUNDLED:
        return _from_files(spec, [BUNDLED[spec]])
    if spec in DOWNLOADS:
        return _from_files(spec, [downloaded(spec, DOWNLOADS[spec])])
    if spec in SOURCES:
        return _from_files(spec, [source_text(spec)])
    path = Path(spec)
    if os.path.isdir(spec):
        return _from_directory(path, keep_near_duplicates)
    if os.path.isfile(spec):
        return _from_files(path.name, [path])
    if is_pattern(spec):
        files = [Path(name) for name in sorted(glob.glob(spec, recursive=True)) if os.path.isfile(name)]
        if not files:
            raise DataError(f"no file matches the pattern {spec!r}")
        return _from_files(spec, files, keep_near_duplicates)
    if os.path.exists(spec):
        raise DataError(f"cannot read {spec}: not a regular file")
    if path.suffix or len(path.parts) > 1:
        raise DataError(f"no such file: {spec}")
    near = difflib.get_close_matches(spec, corpus_names(), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    names = ", ".join(corpus_names())
    raise DataError(f"unknown corpus {spec!r}: {hint}the names are {names}; or give a file, a directory or a pattern")


def _from_directory(directory: Path, keep_near_duplicates: bool) -> Corpus:
    name = directory.resolve().name
    train = directory / "train.txt"
    val = next((directory / name for name in VAL_NAMES if (directory / name).is_file()), None)
    if train.is_file() and val is not None:
        return _with_own_splits(name, train, val)
    files: list[Path] = []
    for folder, folders, names in os.walk(directory, onerror=_raise_unreadable):
        folders[:] = [each for each in folders if not each.startswith(".")]
        files += [Path(folder, each) for each in names if _is_text_name(each)]
    files.sort(key=lambda path: path.relative_to(directory).as_posix())
    files = [path for path in files if file_span(path).n_bytes]
    if not files:
        raise DataError(f"{directory}: no text in this directory (looked for {' '.join(sorted(TEXT_SUFFIXES))})")
    return _from_files(name, files, keep_near_duplicates)


def _is_text_name(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in TEXT_SUFFIXES


def _raise_unreadable(error: OSError) -> None:
    raise unreadable(Path(error.filename), error) from error


def _from_files(name: str, files: list[Path], keep_near_duplicates: bool = False) -> Corpus:
    documents = [span for span in map(file_span, files) if span.n_bytes]
    if not documents:
        raise DataError(f"{name}: no text: {files[0]} is empty")
    corpus = _from_documents(name, documents)
    return corpus if keep_near_duplicates or len(documents) == 1 else _without_near_duplicates(corpus)


def _from_documents(name: str, documents: Sequence[Span]) -> Corpus:
    """Split documents, in order: between two of them, or inside one."""
    whole = _joined(documents)
    found = scan(whole)
    n_first = _first_documents(documents)
    if n_first is not None:
        head, val = _joined(documents[:n_first]), _part(documents[n_first:])
        n_chars = found.n_chars - val.n_chars - len(SEPARATOR)
        train = TextPart(head, sum(span.n_bytes for span in head), n_chars, tuple(documents[:n_first]))
    else:
        n_train = int(TRAIN_FRACTION * found.n_chars)
        head, tail = split_at(whole, n_train)
        n_bytes = sum(span.n_bytes for span in head)
        train = TextPart(head, n_bytes, n_train, _documents(head))
        val = TextPart(tail, found.n_bytes - n_bytes, found.n_chars - n_train, _documents(tail))
    return Corpus(name, found.n_bytes, found.n_chars, found.sha256, whole, train, val)


def _first_documents(documents: Sequence[Span]) -> int | None:
    """Returns the number of documents to train on, or None if no document ends near 90 % of the bytes."""
    ends = list(accumulate(span.n_bytes for span in documents))
    n_first = 1 + min(range(len(ends)), key=lambda i: abs(ends[i] - TRAIN_FRACTION * ends[-1]))
    low, high = TRAIN_FRACTIONS
    return n_first if low <= ends[n_first - 1] / ends[-1] <= high else None


def _joined(documents: Sequence[Span]) -> tuple[Span, ...]:
    """Join documents by `SEPARATOR`, which already follows a document with another one behind it in the same file."""
    spans: list[Span] = []
    for document in documents:
        if spans and spans[-1].source == document.source and spans[-1].stop + len(SEPARATOR) == document.start:
            spans[-1] = Span(document.source, spans[-1].start, document.stop)
        else:
            spans += [*([Span(SEPARATOR, 0, len(SEPARATOR))] if spans else []), document]
    return tuple(spans)


def _part(documents: Sequence[Span]) -> TextPart:
    spans = _joined(documents)
    found = scan(spans)
    return TextPart(spans, found.n_bytes, found.n_chars, tuple(documents))


def _documents(spans: Sequence[Span]) -> tuple[Span, ...]:
    return tuple(span for span in spans if isinstance(span.source, Path))


def _with_own_splits(name: str, train: Path, val: Path) -> Corpus:
    spans = file_span(train), file_span(val)
    for path, span in zip((train, val), spans, strict=True):
        if not span.n_bytes:
            raise DataError(f"{path}: the file is empty")
    whole = _joined(spans)
    found = scan(whole)
    head, tail = (_part([span]) for span in spans)
    return Corpus(name, found.n_bytes, found.n_chars, found.sha256, whole, head, tail)


def _without_near_duplicates(corpus: Corpus) -> Corpus:
    """Leave the documents that nearly equal one of the training split out of the validation split."""
    documents = corpus.val.documents
    removed = set(find_near_duplicates(corpus.train.documents, documents))
    rest = [span for number, span in enumerate(documents) if number not in removed]
    if not rest:
        raise DataError(
            f"{corpus.name}: all documents of the validation split ({len(documents)}) nearly equal documents of the "
            "training split, so none is left: remove copies, or add other texts"
        )
    if not removed:
        return replace(corpus, near_duplicates=NearDuplicates())
    spans = _joined(rest)
    left = scan(spans)
    n_bytes = sum(documents[number].n_bytes for number in removed)
    share = n_bytes / sum(span.n_bytes for span in documents)
    found = NearDuplicates(documents=len(removed), n_bytes=n_bytes, share=share, rest_sha256=left.sha256)
    return replace(corpus, val=TextPart(spans, left.n_bytes, left.n_chars, tuple(rest)), near_duplicates=found)
