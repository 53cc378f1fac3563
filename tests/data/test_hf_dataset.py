"""Tests of Hugging Face datasets: every file format, positions, and one-line errors."""

from __future__ import annotations

import gc
import gzip
import json
import os
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from lmzoo.data.hf_dataset import HFDataset, Place, parse_spec
from lmzoo.errors import DataError
from tests.data.datasets import TEXTS, jsonl, parquet

Write = Callable[[str, str | bytes], Path]


def texts_of(spec: str) -> list[str]:
    # `datasets` leaves files open. A warning about one of them, raised by the garbage collector in the middle of an
    # import, breaks the import lock of Python 3.11: so collect them before the next import.
    gc.collect()
    dataset = HFDataset(spec)
    return list(dataset.texts(dataset.split))


def test_hf_dataset_reads_parquet(shards: Path) -> None:
    assert texts_of(f"hf:{shards}") == TEXTS
    assert texts_of(f"hf:{shards / 'part-1.parquet'}") == TEXTS[20:40]


def test_hf_dataset_reads_json_lines_also_compressed(write: Write) -> None:
    lines = jsonl(TEXTS, meta={"a": [1, None]})
    assert texts_of(f"hf:{write('plain/a.jsonl', lines)}") == TEXTS
    assert texts_of(f"hf:{write('gz/a.jsonl.gz', gzip.compress(lines.encode()))}") == TEXTS


def test_hf_dataset_reads_a_row_without_text_as_empty(write: Write) -> None:
    assert texts_of(f"hf:{write('a.jsonl', jsonl(['a', None, 'b']))}") == ["a", "", "b"]


def test_hf_dataset_reads_plain_text_exactly(write: Write, chinese: str) -> None:
    dataset = HFDataset(f"hf:{write('a.txt', chinese)}")
    assert "".join(text + dataset.separator for text in dataset.texts("train")) == chinese


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # datasets leaves CSV files open
def test_hf_dataset_reads_csv_and_arrow(write: Write, tmp_path: Path) -> None:
    assert texts_of(f"hf:{write('a.csv', 'text,n' + chr(10) + 'one,1' + chr(10) + 'two,2' + chr(10))}") == [
        "one",
        "two",
    ]
    table = pyarrow.table({"text": ["three"]})
    with pyarrow.OSFile(str(tmp_path / "b.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    assert texts_of(f"hf:{tmp_path / 'b.arrow'}") == ["three"]
    gc.collect()  # so that the warning about the open file is not raised in another test


def test_hf_dataset_finds_or_takes_columns_and_splits(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    parquet(folder / "train.parquet", {"id": [1], "story": ["once"]})
    parquet(folder / "test.parquet", {"id": [2], "story": ["twice"]})
    dataset = HFDataset(f"hf:{folder}")
    assert (dataset.split, dataset.validation, dataset.column) == ("train", "test", "story")
    assert texts_of(f"hf:{folder},split=test,column=story,config=default") == ["twice"]
    assert HFDataset(f"hf:{folder},split=test").validation is None
    both = parquet(tmp_path / "both.parquet", {"text": ["a"], "title": ["b"]})
    assert texts_of(f"hf:{both}") == ["a"]
    assert texts_of(f"hf:{both},column=title") == ["b"]


def test_place_continues_exactly(shards: Path, write: Write) -> None:
    """From any row of any format, with the place stored as JSON, to the end."""
    for spec in (f"hf:{shards}", f"hf:{write('a.jsonl', jsonl(TEXTS))}", f"hf:{write('a.txt', chr(10).join(TEXTS))}"):
        dataset = HFDataset(spec)
        for start in (0, 1, 6, 7, 19, 20, 21, 40, 59, 60):
            texts = dataset.texts("train")
            before = list(islice(texts, start))
            kept = json.loads(json.dumps(texts.place.library))
            texts.close()
            assert [*before, *HFDataset(spec).texts("train", Place(start, kept))] == TEXTS, (spec, start)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:", "data='hf:' names no dataset: it must have the form hf:NAME[,config=...]"),
        ("hf:,column=a", "names no dataset"),
        ("hf:a,colum=b", "'colum' is not an option of hf:; did you mean 'column'?"),
        ("hf:a,column", "column must have one value: hf:NAME"),
        ("hf:a,column=b,column=c", "column must have one value"),
    ],
)
def test_parse_spec_names_the_wrong_part(spec: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_spec(spec)
    assert message in str(caught.value)


def test_parse_spec_reads_all_options() -> None:
    spec = parse_spec("hf:owner/name,config=en,split=all,column=body,revision=v1")
    assert (spec.name, spec.options) == (
        "owner/name",
        {"config": "en", "split": "all", "column": "body", "revision": "v1"},
    )


def refused(spec: str, *parts: str) -> None:
    """Check that opening raises a one-line error that contains all parts."""
    with pytest.raises(DataError) as caught:
        HFDataset(spec)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_hf_dataset_names_data_that_cannot_be_opened(tmp_path: Path, write: Write, shards: Path) -> None:
    refused(f"hf:{tmp_path / 'none'}", "none' cannot be opened: ")
    refused("hf:owner/name", "data='hf:owner/name' cannot be opened: ConnectionError", "owner/name")
    refused(f"hf:{shards},config=other", "cannot be opened: ", "'other' not found")
    refused(f"hf:{shards},split=test", "has no split 'test'; it has: train; choose with ,split=NAME")
    refused(f"hf:{shards},column=n", "has no column of texts 'n'; it has: text; choose with ,column=NAME")
    two = write("two.jsonl", json.dumps({"a": "b", "c": "d"}))
    refused(f"hf:{two}", "has no column of texts 'text'; it has: a, c")
    refused(f"hf:{write('numbers.jsonl', jsonl([1, 2]))}", "has no column of texts 'text'; it has: none")
    refused(f"hf:{write('x.xml', '<a>b</a>')}", "is read as xml: it must be one of parquet, arrow, json, csv, text")


def test_hf_dataset_runs_no_code_of_a_dataset(write: Write, tmp_path: Path) -> None:
    script = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    folder = write("script/script.py", script).parent
    refused(f"hf:{folder}", "cannot be opened: RuntimeError: Dataset scripts are no longer supported")
    assert not (tmp_path / "ran").exists()


def test_hf_dataset_names_rows_that_cannot_be_read(write: Write) -> None:
    refused(f"hf:{write('latin.txt', b'a' + bytes([233]))}", "latin.txt' cannot be opened: UnicodeDecodeError")
    lines = write("late.jsonl", jsonl(["x" * 999] * 12_000) + '{"text": "unfin')
    dataset = HFDataset(f"hf:{lines}")
    with pytest.raises(DataError, match=r"late.jsonl: row \d+ cannot be read: \w+: ") as caught:
        list(dataset.texts("train"))
    assert "\n" not in str(caught.value)


def test_hf_dataset_names_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # type: ignore[arg-type]  # as Python does for a missing module
    with pytest.raises(DataError) as caught:
        HFDataset("hf:owner/name")
    assert str(caught.value) == "data='hf:owner/name' needs datasets: pip install '.[hf-data]' in the checkout"


@pytest.mark.parametrize("place", ["../secret.txt", "https://localhost:1/secret.txt"])
def test_hf_dataset_stays_inside_its_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "secret.txt").write_text("secret\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.txt").write_text("open\n")
    readme = f"---\nconfigs:\n- config_name: default\n  data_files: {place}\n---\n"
    (tmp_path / "d" / "README.md").write_text(readme)
    with pytest.raises(DataError, match=r"outside of the folder|cannot be opened"):
        HFDataset(f"hf:{tmp_path / 'd'}")


def test_hf_dataset_waits_for_no_pipe(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("open\n")
    os.mkfifo(tmp_path / "b.txt")
    with pytest.raises(DataError, match=r"b\.txt: cannot be read: it is not a regular file"):
        HFDataset(f"hf:{tmp_path}")
