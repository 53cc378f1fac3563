"""Chinese from end to end: training on it, streaming whole characters, and the terms of the Chinese documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lmzoo.generation import generate_text
from lmzoo.runs.run import load_run, train_run
from lmzoo.runs.spec import make_spec
from lmzoo.sampling import SamplingConfig

ROOT = Path(__file__).parent.parent
GLOSSARY = ROOT / "docs" / "glossary.md"
CHINESE_DOCUMENTS = [ROOT / "README.zh-CN.md", *sorted((ROOT / "docs" / "course" / "zh").glob("*.md"))]
# Words that the glossary replaces, and the term to use.
REPLACED = {
    "n 元模型": "n 元语法",
    "说明卡": "模型卡",
    "令牌": "词元",
    "隐藏状态": "隐状态",
    "投机解码": "推测解码",
    "上下文窗口大小": "上下文长度",
}
TEXT = (
    "清晨，小镇的石板路还带着夜里的雨水。卖豆浆的老人推开木门，热气从锅里升起来，把灯光染成了乳白色。"
    "孩子们背着书包跑过桥头，笑声惊起了河边的白鹭。老人说，他年轻的时候，河水比现在清得多，站在桥上能看见鱼。"
    "如今鱼少了，路宽了，来来往往的人也多了。可是每到下雨的早晨，石板路还是从前的样子，豆浆还是从前的味道。\n"
)


@pytest.mark.parametrize(("tokenizer", "splits"), [("char", False), ("byte", True), ("bpe:280", True)])
def test_generate_text_streams_whole_chinese_characters(tmp_path: Path, tokenizer: str, splits: bool) -> None:
    (tmp_path / "小镇.txt").write_text(TEXT * 20, encoding="utf-8")
    small = {"d_model": 32, "n_layers": 1, "n_heads": 2, "context_length": 32, "steps": 60, "batch_size": 8}
    train_run(make_spec("gpt2", str(tmp_path / "小镇.txt"), tokenizer=tokenizer, overrides=small), tmp_path / "run")
    model, tokens, _ = load_run(tmp_path / "run")

    ids = tokens.encode(TEXT)
    assert tokens.decode(ids) == TEXT
    assert (len(ids) > len(TEXT)) == splits, "the case must have, or not have, characters of several tokens"
    pieces = list(
        generate_text(model, tokens, "小镇", 120, SamplingConfig(), generator=torch.Generator().manual_seed(0))
    )
    assert len(pieces) > 1, "the text must come in several pieces"
    # An undertrained model may write bytes that are not UTF-8: the stream must show U+FFFD exactly where decoding all
    # tokens at once does, and never because a character was cut.
    idx = torch.tensor([tokens.encode("小镇")])
    written = model.generate(idx, 120, generator=torch.Generator().manual_seed(0))[0, idx.shape[1] :]
    assert "".join(pieces) == tokens.decode(written.tolist())

    stream = tokens.stream()
    fed = [stream.feed(token) for token in ids]
    assert "".join(fed) + stream.finish() == TEXT
    assert "\ufffd" not in "".join(fed)


def glossary_rows() -> list[list[str]]:
    """The cells of each row of the glossary: term, Chinese term, meaning, note."""
    lines = [line for line in GLOSSARY.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in rows if row[0] not in ("term", "---")]


def test_glossary_has_a_chinese_term_and_a_meaning_for_each_term() -> None:
    rows = glossary_rows()
    assert len(rows) >= 60
    assert len({row[0] for row in rows}) == len(rows), "a term is listed once"
    for term, chinese, meaning, _ in rows:
        assert re.search("[\u4e00-\u9fff]", chinese), f"{term}: no Chinese term"
        assert re.fullmatch(r"[A-Z][^|]*\.", meaning), f"{term}: the meaning is one sentence"
        assert not re.search("[\u4e00-\u9fff]", meaning), f"{term}: the meaning is in English"


@pytest.mark.parametrize("path", CHINESE_DOCUMENTS, ids=lambda path: path.name)
def test_chinese_documents_use_the_terms_of_the_glossary(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    terms = " ".join(row[1] for row in glossary_rows())
    for word, term in REPLACED.items():
        assert term in terms, f"{term} is not in the glossary"
        assert word not in text, f"{path.name} says {word}: use {term}"
