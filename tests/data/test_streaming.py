"""Streamed corpora: datasets of every format, exact texts and places, bounded memory, one clear line of error."""

from __future__ import annotations

import gc
import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lmzoo.data.corpora import load_corpus
from lmzoo.data.hf_dataset import HFDataset, Place, parse_spec
from lmzoo.data.streaming import PREFIX_BYTES, VALIDATION_BYTES, load_stream
from lmzoo.data.token_reader import TokenPosition, TokenReader
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.errors import CheckpointError, ConfigError, DataError

Write = Callable[[str, str | bytes], Path]

TEXTS = [f"Text {i}: " + "说 the cat sat. " * (i % 7) for i in range(60)]


def jsonl(texts: Sequence[Any], column: str = "text", **more: object) -> str:
    return "".join(json.dumps({column: text, **more}) + "\n" for text in texts)


def parquet(path: Path, columns: dict[str, list[Any]], rows: int = 7) -> Path:
    """A file with `rows` rows in a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=rows)
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder of three Parquet files, of several row groups each."""
    for shard in range(3):
        texts = TEXTS[20 * shard : 20 * shard + 20]
        parquet(tmp_path / "shards" / f"part-{shard}.parquet", {"text": texts, "n": list(range(20))})
    return tmp_path / "shards"


def texts_of(spec: str) -> list[str]:
    dataset = HFDataset(spec)
    return list(dataset.texts(dataset.split))


# What is read ---------------------------------------------------------------------------------------------------------


def test_parquet(shards: Path) -> None:
    assert texts_of(f"hf:{shards}") == TEXTS
    assert texts_of(f"hf:{shards / 'part-1.parquet'}") == TEXTS[20:40]


def test_json_lines_also_compressed(write: Write) -> None:
    lines = jsonl(TEXTS, meta={"a": [1, None]})
    assert texts_of(f"hf:{write('plain/a.jsonl', lines)}") == TEXTS
    assert texts_of(f"hf:{write('gz/a.jsonl.gz', gzip.compress(lines.encode()))}") == TEXTS


def test_a_row_without_a_text_is_an_empty_one(write: Write) -> None:
    assert texts_of(f"hf:{write('a.jsonl', jsonl(['a', None, 'b']))}") == ["a", "", "b"]


def test_plain_text_comes_out_as_it_was(write: Write, chinese: str) -> None:
    dataset = HFDataset(f"hf:{write('a.txt', chinese)}")
    assert "".join(text + dataset.separator for text in dataset.texts("train")) == chinese


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # datasets leaves CSV files open
def test_csv_and_arrow(write: Write, tmp_path: Path) -> None:
    assert texts_of(f"hf:{write('a.csv', 'text,n' + chr(10) + 'one,1' + chr(10) + 'two,2' + chr(10))}") == [
        "one",
        "two",
    ]
    table = pyarrow.table({"text": ["three"]})
    with pyarrow.OSFile(str(tmp_path / "b.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    assert texts_of(f"hf:{tmp_path / 'b.arrow'}") == ["three"]
    gc.collect()  # so that the file which is left open is not complained of in another test


def test_columns_and_splits_are_found_or_chosen(tmp_path: Path) -> None:
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


def test_a_place_is_exact(shards: Path, write: Write) -> None:
    """From any row of any format, through JSON, and to the end."""
    for spec in (f"hf:{shards}", f"hf:{write('a.jsonl', jsonl(TEXTS))}", f"hf:{write('a.txt', chr(10).join(TEXTS))}"):
        dataset = HFDataset(spec)
        for start in (0, 1, 6, 7, 19, 20, 21, 40, 59, 60):
            texts = dataset.texts("train")
            before = list(islice(texts, start))
            kept = json.loads(json.dumps(texts.place.library))
            texts.close()
            assert [*before, *HFDataset(spec).texts("train", Place(start, kept))] == TEXTS, (spec, start)


# What is refused ------------------------------------------------------------------------------------------------------


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
def test_the_form_of_the_name(spec: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_spec(spec)
    assert message in str(caught.value)


def test_a_name_with_options() -> None:
    spec = parse_spec("hf:owner/name,config=en,split=all,column=body,revision=v1")
    assert (spec.name, spec.options) == (
        "owner/name",
        {"config": "en", "split": "all", "column": "body", "revision": "v1"},
    )


def refused(spec: str, *parts: str) -> None:
    """Opening raises one line that holds all the parts."""
    with pytest.raises(DataError) as caught:
        load_stream(spec)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_what_cannot_be_opened(tmp_path: Path, write: Write, shards: Path) -> None:
    refused(f"hf:{tmp_path / 'none'}", "none' cannot be opened: ")
    refused("hf:owner/name", "data='hf:owner/name' cannot be opened: ConnectionError", "owner/name")
    refused(f"hf:{shards},config=other", "cannot be opened: ", "'other' not found")
    refused(f"hf:{shards},split=test", "has no split 'test'; it has: train; choose with ,split=NAME")
    refused(f"hf:{shards},column=n", "has no column of texts 'n'; it has: text; choose with ,column=NAME")
    two = write("two.jsonl", json.dumps({"a": "b", "c": "d"}))
    refused(f"hf:{two}", "has no column of texts 'text'; it has: a, c")
    refused(f"hf:{write('numbers.jsonl', jsonl([1, 2]))}", "has no column of texts 'text'; it has: none")
    refused(f"hf:{write('x.xml', '<a>b</a>')}", "is read as xml: it must be one of parquet, arrow, json, csv, text")


def test_no_code_of_a_dataset_runs(write: Write, tmp_path: Path) -> None:
    script = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    folder = write("script/script.py", script).parent
    refused(f"hf:{folder}", "cannot be opened: RuntimeError: Dataset scripts are no longer supported")
    assert not (tmp_path / "ran").exists()


def test_what_cannot_be_read(write: Write) -> None:
    refused(f"hf:{write('latin.txt', b'a' + bytes([233]))}", "latin.txt' cannot be opened: UnicodeDecodeError")
    lines = write("late.jsonl", jsonl(["x" * 999] * 12_000) + '{"text": "unfin')
    dataset = HFDataset(f"hf:{lines}")
    with pytest.raises(DataError, match=r"late.jsonl: row \d+ cannot be read: \w+: ") as caught:
        list(dataset.texts("train"))
    assert "\n" not in str(caught.value)


def test_too_little(write: Write) -> None:
    refused(f"hf:{write('one.jsonl', jsonl(['one']))}", "has 1 rows in its split 'train': none is left to train on")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # type: ignore[arg-type]  # what Python does for one not there
    with pytest.raises(DataError) as caught:
        load_stream("hf:owner/name")
    assert str(caught.value) == "data='hf:owner/name' needs datasets: pip install '.[hf-data]' in the checkout"


def test_a_stream_is_no_corpus() -> None:
    with pytest.raises(DataError, match="'hf:owner/name' is a stream, and this needs a text that is read whole"):
        load_corpus("hf:owner/name")


# Training and validation ----------------------------------------------------------------------------------------------


def test_the_first_tenth_is_held_out(write: Write) -> None:
    texts = [f"{i:03d}{'x' * 45}" for i in range(100)]  # 50 bytes each with the separator
    corpus = load_stream(f"hf:{write('a.jsonl', jsonl(texts))}")
    assert (corpus.held_out, corpus.val.n_bytes, corpus.val.n_chars) == (10, 500, 500)
    assert "".join(corpus.chunks("val")) == "\n\n".join(texts[:10]) + "\n\n"
    assert "".join(corpus.chunks("train")) == "\n\n".join(texts[10:]) + "\n\n"
    byte = train_tokenizer("byte", [])
    split = corpus.validation(byte)
    assert bytes(split.tokens.astype("uint8").tolist()).decode() == "".join(corpus.chunks("val"))
    assert (split.split, split.n_tokens, split.n_bytes) == ("val", 500, 500)
    reader = corpus.reader(byte)
    for _ in range(2):  # in every pass
        assert bytes(reader.read(4500).tolist()).decode() == "".join(corpus.chunks("train"))


def test_its_own_validation_split(write: Write, chinese: str) -> None:
    folder = write("d/train.jsonl", jsonl([chinese, "a"])).parent
    write("d/validation.jsonl", jsonl(["eine", "zwei"]))
    corpus = load_stream(f"hf:{folder}")
    assert corpus.held_out == 0
    assert "".join(corpus.chunks("train")) == f"{chinese}\n\na\n\n"
    assert "".join(corpus.chunks("val")) == "eine\n\nzwei\n\n"
    assert (corpus.train.n_bytes, corpus.train.n_chars) == (len(chinese.encode()) + 5, len(chinese) + 5)


def test_only_the_first_part_is_looked_at(write: Write) -> None:
    kilobyte = "x" * 1022
    folder = write("d/train.jsonl", jsonl([kilobyte] * 12_000)).parent
    corpus = load_stream(f"hf:{folder}")
    assert corpus.train.n_bytes + corpus.val.n_bytes == PREFIX_BYTES
    assert corpus.val.n_bytes == PREFIX_BYTES // 10
    write("d/test.jsonl", jsonl([kilobyte] * 2_000))
    corpus = load_stream(f"hf:{folder}")
    assert corpus.train.n_bytes == PREFIX_BYTES
    assert corpus.val.n_bytes == VALIDATION_BYTES


def test_identity_is_that_of_the_data(write: Write) -> None:
    """Not of the place; another column, another validation, and what was added beyond the first part, is another."""
    texts = ["x" * 1022] * 10_300
    rows = "".join(json.dumps({"text": text, "more": text}) + "\n" for text in texts)
    file = write("a/part.jsonl", rows)
    sha256 = load_stream(f"hf:{file}").sha256
    assert load_stream(f"hf:{write('b/part.jsonl', rows)}").sha256 == sha256
    others = [f"hf:{file},column=more", f"hf:{write('c/part.jsonl', rows + jsonl(['end'], more=''))}"]
    others += [f"hf:{write('d/part.jsonl', rows.replace('x', 'y', 1))}"]
    write("e/train.jsonl", rows)
    for validation in ("a", "b"):
        others.append(f"hf:{write(f'e{validation}/validation.jsonl', jsonl([validation], more='')).parent}")
        write(f"e{validation}/train.jsonl", rows)
    found = [load_stream(other).sha256 for other in others]
    assert len({sha256, *found}) == 1 + len(others)


# Tokens and places in them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["byte", "bpe:270"])
def test_tokens_from_any_place_are_the_same(shards: Path, tokenizer: str) -> None:
    corpus = load_stream(f"hf:{shards}")
    tokens = train_tokenizer(tokenizer, corpus.chunks("train"))
    text = "".join(corpus.chunks("train"))
    pass_tokens = sum(len(tokens.encode(chunk)) for chunk in corpus.chunks("train"))
    whole = corpus.reader(tokens).read(2 * pass_tokens)
    assert tokens.decode(whole) == text * 2
    for start in (0, 1, 17, 300, pass_tokens - 1, pass_tokens, pass_tokens + 1, pass_tokens + 300):
        reader = corpus.reader(tokens)
        if start:
            reader.read(start)
        assert reader.peek() == whole[start]
        position = reader.position
        again = load_stream(f"hf:{shards}").reader(tokens)
        again.restore(position)
        rest = 2 * pass_tokens - start
        assert again.position == position
        assert again.read(rest).tolist() == whole[start:].tolist() == reader.read(rest).tolist()


def test_a_text_that_has_no_tokens_is_named(write: Write) -> None:
    corpus = load_stream(f"hf:{write('a.jsonl', jsonl(['abc', 'cab', 'bca', 'aéb']))}")
    reader = TokenReader(corpus.dataset, 0, train_tokenizer("char", ["abc\n"]))
    with pytest.raises(DataError, match=r"a.jsonl: row 3: character 'é' .*use the tokenizer char\+unk, byte or bpe:N"):
        reader.read(20)


def position_in(shards: Path, count: int) -> tuple[TokenReader, TokenPosition]:
    reader = load_stream(f"hf:{shards}").reader(train_tokenizer("byte", []))
    reader.read(count)
    return reader, reader.position


def test_data_that_changed_where_training_stopped(shards: Path) -> None:
    reader, position = position_in(shards, 1500)
    assert 20 <= position.row < 40
    texts = TEXTS[20:40]
    texts[position.row - 20] = texts[position.row - 20].replace("cat", "dog")
    parquet(shards / "part-1.parquet", {"text": texts, "n": list(range(20))})
    with pytest.raises(CheckpointError, match=rf"row {position.row} is not the text that training stopped in"):
        reader.restore(position)
    (shards / "part-1.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(CheckpointError, match=r"the place in the data where training stopped is not found: .*row"):
        reader.restore(position)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token": 10_000}, "token=10000 must be within a text of"),
        ({"epoch": 1, "library": None}, "is not the text that training stopped in"),
        ({"library": {}}, "library is no place in this dataset, or is of another version of datasets"),
        ({"library": {"examples_iterable": 1, "epoch": 0}}, "library is no place in this dataset"),
    ],
)
def test_a_position_that_is_none(shards: Path, change: dict[str, Any], message: str) -> None:
    reader, position = position_in(shards, 1500)
    fields = {**vars(position), **change}
    with pytest.raises(CheckpointError, match=message):
        reader.restore(TokenPosition(**fields))


def test_the_librarys_part_of_a_place_is_checked(shards: Path) -> None:
    reader, position = position_in(shards, 1500)
    text = json.dumps(position.library)
    assert '"shard_idx": 1' in text
    for other in ('"shard_idx": -1', '"shard_idx": "1"', '"shard_idx": true', '"shard_idx": 1.0', '"shard": 1'):
        library = json.loads(text.replace('"shard_idx": 1', other))
        with pytest.raises(CheckpointError, match="library is no place in this dataset"):
            reader.restore(TokenPosition(**{**vars(position), "library": library}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epoch": -1, "sha256": ""}, "epoch=-1 must be in"),
        ({"row": -1, "sha256": ""}, "row=-1 must be in"),
        ({"token": -1, "sha256": ""}, "token=-1 must be in"),
        ({"token": 1}, "sha256 must be given where something was read"),
        ({"epoch": 1}, "sha256 must be given"),
        ({"library": {}}, "sha256 must be given"),
    ],
)
def test_impossible_positions(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TokenPosition(**fields)


_MEASURED = """
import resource, sys
from lmzoo.data.stream_batches import StreamBatches
from lmzoo.data.streaming import load_stream
from lmzoo.data.tokenizers import train_tokenizer
def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def read(path, steps):
    corpus = load_stream("hf:" + path)
    batches = StreamBatches(corpus.reader(train_tokenizer("byte", [])), 64, 1024, 0)
    for step in range(steps):
        batches.batch(step)
    batches.close()
    return steps * 64 * 1024
read(sys.argv[1], 160)
before = peak_mib()
print(read(sys.argv[2], 960), peak_mib() - before)
"""


def test_memory_does_not_grow_with_the_stream(write: Write, process_env: dict[str, str]) -> None:
    """What 12 MB took is enough for 64 MB, which are read nearly to their end."""
    line = json.dumps({"text": "sixteen letters " * 64}) + "\n"
    small, large = write("small.jsonl", line * 12_000), write("large.jsonl", line * (64 << 10))
    command = [sys.executable, "-c", _MEASURED, str(small), str(large)]
    done = subprocess.run(command, env=process_env, check=True, capture_output=True, text=True)
    n_tokens, growth_mib = done.stdout.split()
    assert int(n_tokens) == 60 << 20
    assert float(growth_mib) < 24
    assert done.stderr == ""
