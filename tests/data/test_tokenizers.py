"""Tests of kinds of tokenizers: training is deterministic, loading finds the file, and wrong calls give one line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmzoo.data.tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from lmzoo.errors import DataError

SPECS = ["char", "char+unk", "byte", "bpe:256", "bpe:400"]


def _train(spec: str, text: str) -> Tokenizer:
    return train_tokenizer(spec, [text])


@pytest.mark.parametrize("spec", ["chars", "", "bpe", "bpe:", "bpe:255", "bpe:-1", "bpe:1e3", "bpe:٣٠٠", "byte:300"])
def test_train_tokenizer_refuses_a_wrong_spec(spec: str) -> None:
    with pytest.raises(DataError, match=re.escape(repr(spec))):
        train_tokenizer(spec, ["text"])


def test_train_tokenizer_char_needs_text() -> None:
    with pytest.raises(DataError, match="at least one character"):
        train_tokenizer("char", [])


@pytest.mark.parametrize("spec", SPECS)
def test_load_tokenizer_returns_the_saved_tokenizer(spec: str, chinese: str, emoji: str, tmp_path: Path) -> None:
    tokenizer = _train(spec, chinese + emoji)
    checkpoint = tmp_path / "run" / "checkpoints" / "step-1"
    checkpoint.mkdir(parents=True)
    tokenizer.save(tmp_path / "run")
    assert (tmp_path / "run" / "tokenizer.json").is_file()
    places = (tmp_path / "run" / "tokenizer.json", tmp_path / "run", checkpoint.parent, checkpoint)
    for path in (*places, str(checkpoint)):
        loaded = load_tokenizer(path)
        assert (loaded.spec, loaded.sha256) == (tokenizer.spec, tokenizer.sha256)
        assert loaded.encode(chinese + emoji) == tokenizer.encode(chinese + emoji)


def test_train_tokenizer_is_deterministic(chinese: str, process_env: dict[str, str]) -> None:
    code = (
        "import sys; from lmzoo.data import train_tokenizer; "
        "print(*(train_tokenizer(s, [sys.argv[1]]).sha256 for s in ('char', 'bpe:380')))"
    )
    expected = f"{_train('char', chinese).sha256} {_train('bpe:380', chinese).sha256}\n"
    for seed in ("1", "2"):
        env = {**process_env, "PYTHONHASHSEED": seed}
        shown = subprocess.run([sys.executable, "-c", code, chinese], env=env, capture_output=True, check=True)
        assert shown.stdout.decode() == expected


@pytest.mark.parametrize("spec", SPECS)
def test_train_tokenizer_refuses_what_is_no_text(spec: str) -> None:
    if spec != "byte":  # which reads no text
        for chunks, message in (
            (None, "chunks=None must be"),
            (["a", b"b"], "chunks holds b'b'"),
            (b"ab", "chunks holds 97"),
        ):
            with pytest.raises(DataError, match=message):
                train_tokenizer(spec, chunks)  # type: ignore[arg-type]


def test_load_tokenizer_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file: .*none\.json"):
        load_tokenizer(tmp_path / "none.json")
    with pytest.raises(DataError, match=r"no tokenizer\.json in"):
        load_tokenizer(tmp_path)
