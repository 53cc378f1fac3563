"""Fixtures of the data tests: an empty cache for each test, sample texts, and a folder of Parquet files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import lmzoo.data
from lmzoo.data.tokenizers import load_tokenizer
from lmzoo.errors import DataError
from tests.data.datasets import TEXTS, parquet

CHINESE = """\
清晨，雾还没有散，老周推开书店的木门，把昨夜写好的小黑板搬到台阶上。黑板上写着：“今日新书三本，旧书半价。”
他泡了一壶茶，坐在窗边读报。街对面的豆浆铺已经排起了队，有人买油条，有人买包子，热气一团一团地升起来。
八点半，第一位客人进来了。是个十来岁的女孩，背着书包，鼻尖冻得通红。“叔叔，有讲机器怎样学说话的书吗？”
老周想了想，从最高的一层取下一本薄薄的小册子：“这本讲得最明白。它说，先数一数哪个字后面常跟着哪个字；
数得多了，机器就能猜出下一个字。猜错了也不要紧，改一改，再猜。”女孩翻了几页，笑了：“跟我背课文一样！”
傍晚下起了小雨。老周收好黑板，在账本上记下一行：卖出三册，得款四十二元五角。雨声里，他又把那本小册子读了一遍。
"""

# Characters of several code points: a family, flags, a skin tone, a combining accent; and a character beyond the BMP.
EMOJI = "👩‍👩‍👧‍👦 一家四口，🇨🇳🇫🇷 两面旗，👍🏽 好！e\u0301 𠮷野家。\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory for each test."""
    path = tmp_path / "cache"
    monkeypatch.setenv("LMZOO_CACHE", str(path))
    return path


@pytest.fixture
def chinese() -> str:
    return CHINESE


@pytest.fixture
def emoji() -> str:
    return EMOJI


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """A function that writes a file in the temporary directory of the test and returns its path."""

    def _write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


@pytest.fixture
def require_refused(write: Callable[[str, str | bytes], Path]) -> Callable[[str, str], None]:
    """A function that loads a tokenizer file and requires an error of one line that names the file and the reason."""

    def _require(content: str, reason: str) -> None:
        path = write("tokenizer.json", content)
        with pytest.raises(DataError) as caught:
            load_tokenizer(path)
        assert reason in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    return _require


@pytest.fixture
def process_env() -> dict[str, str]:
    """The environment for a child process that imports the same lmzoo as the test."""
    root = Path(lmzoo.data.__file__).parents[2]
    return {**os.environ, "PYTHONPATH": str(root)}


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder of three Parquet files with several row groups each."""
    for shard in range(3):
        texts = TEXTS[20 * shard : 20 * shard + 20]
        parquet(tmp_path / "shards" / f"part-{shard}.parquet", {"text": texts, "n": list(range(20))})
    return tmp_path / "shards"
