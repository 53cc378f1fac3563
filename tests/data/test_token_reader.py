"""Tests of the token reader: the same tokens from every position, and positions that must be refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmzoo.data.streaming import load_stream
from lmzoo.data.token_reader import TokenPosition, TokenReader
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.errors import CheckpointError, ConfigError, DataError
from tests.data.datasets import TEXTS, jsonl, parquet

Write = Callable[[str, str | bytes], Path]


@pytest.mark.parametrize("tokenizer", ["byte", "bpe:270"])
def test_token_reader_restore_continues_with_the_same_tokens(shards: Path, tokenizer: str) -> None:
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


def test_token_reader_names_a_text_that_cannot_be_encoded(write: Write) -> None:
    corpus = load_stream(f"hf:{write('a.jsonl', jsonl(['abc', 'cab', 'bca', 'aéb']))}")
    reader = TokenReader(corpus.dataset, 0, train_tokenizer("char", ["abc\n"]))
    with pytest.raises(DataError, match=r"a.jsonl: row 3: character 'é' .*use the tokenizer char\+unk, byte or bpe:N"):
        reader.read(20)


def position_in(shards: Path, count: int) -> tuple[TokenReader, TokenPosition]:
    reader = load_stream(f"hf:{shards}").reader(train_tokenizer("byte", []))
    reader.read(count)
    return reader, reader.position


def test_token_reader_restore_refuses_changed_data(shards: Path) -> None:
    reader, position = position_in(shards, 1500)
    assert 20 <= position.row < 40
    texts = TEXTS[20:40]
    texts[position.row - 20] = texts[position.row - 20].replace("cat", "dog")
    parquet(shards / "part-1.parquet", {"text": texts, "n": list(range(20))})
    with pytest.raises(CheckpointError, match=rf"row {position.row} differs from the text where training stopped"):
        reader.restore(position)
    (shards / "part-1.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(CheckpointError, match=r"the place in the data where training stopped is not found: .*row"):
        reader.restore(position)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token": 10_000}, "token=10000 must be within a text of"),
        ({"epoch": 1, "library": None}, "differs from the text where training stopped"),
        ({"library": {}}, "library is not a position in this dataset, or comes from another version of datasets"),
        ({"library": {"examples_iterable": 1, "epoch": 0}}, "library is not a position in this dataset"),
    ],
)
def test_token_reader_restore_refuses_impossible_positions(shards: Path, change: dict[str, Any], message: str) -> None:
    reader, position = position_in(shards, 1500)
    fields = {**vars(position), **change}
    with pytest.raises(CheckpointError, match=message):
        reader.restore(TokenPosition(**fields))


def test_token_reader_restore_checks_the_state_of_datasets(shards: Path) -> None:
    reader, position = position_in(shards, 1500)
    text = json.dumps(position.library)
    assert '"shard_idx": 1' in text
    for other in ('"shard_idx": -1', '"shard_idx": "1"', '"shard_idx": true', '"shard_idx": 1.0', '"shard": 1'):
        library = json.loads(text.replace('"shard_idx": 1', other))
        with pytest.raises(CheckpointError, match="library is not a position in this dataset"):
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
def test_token_position_refuses_impossible_values(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TokenPosition(**fields)


def test_token_reader_read_row_cuts_each_document(write: Write) -> None:
    """A row begins with the last target of the row before it; documents of one token have no row."""
    texts = ["abcdefg", "", "hi", "jklmnopq"]
    write("d/validation.jsonl", jsonl(["later"]))
    reader = load_stream(f"hf:{write('d/train.jsonl', jsonl(texts)).parent}").reader(train_tokenizer("byte", []))
    rows = [bytes(reader.read_row(4).tolist()).decode() for _ in range(8)]
    assert rows[:3] == ["abcde", "efg\n\n", "\n\n"]
    assert rows[3:] == ["hi\n\n", "jklmn", "nopq\n", "\n\n", "abcde"]
