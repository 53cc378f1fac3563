"""Chinese from end to end: a model is trained on it, and what it streams never holds a broken character."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lmzoo.generation import generate_text
from lmzoo.runs.run import load_run, train_run
from lmzoo.runs.spec import make_spec
from lmzoo.sampling import SamplingConfig

TEXT = (
    "清晨，小镇的石板路还带着夜里的雨水。卖豆浆的老人推开木门，热气从锅里升起来，把灯光染成了乳白色。"
    "孩子们背着书包跑过桥头，笑声惊起了河边的白鹭。老人说，他年轻的时候，河水比现在清得多，站在桥上能看见鱼。"
    "如今鱼少了，路宽了，来来往往的人也多了。可是每到下雨的早晨，石板路还是从前的样子，豆浆还是从前的味道。\n"
)


@pytest.mark.parametrize(("tokenizer", "splits"), [("char", False), ("byte", True), ("bpe:280", True)])
def test_a_model_trained_on_chinese_streams_whole_characters(tmp_path: Path, tokenizer: str, splits: bool) -> None:
    (tmp_path / "小镇.txt").write_text(TEXT * 20, encoding="utf-8")
    small = {"d_model": 32, "n_layers": 1, "n_heads": 2, "context_length": 32, "steps": 60, "batch_size": 8}
    train_run(make_spec("gpt2", str(tmp_path / "小镇.txt"), tokenizer=tokenizer, overrides=small), tmp_path / "run")
    model, tokens, _ = load_run(tmp_path / "run")

    ids = tokens.encode(TEXT)
    assert tokens.decode(ids) == TEXT
    assert (len(ids) > len(TEXT)) == splits, "characters that take several tokens are what this is about"
    pieces = list(
        generate_text(model, tokens, "小镇", 120, SamplingConfig(), generator=torch.Generator().manual_seed(0))
    )
    assert len(pieces) > 1, "it streams"
    # What an undertrained model writes may not be UTF-8: only then, and never inside a character, a sign stands for it.
    idx = torch.tensor([tokens.encode("小镇")])
    written = model.generate(idx, 120, generator=torch.Generator().manual_seed(0))[0, idx.shape[1] :]
    assert "".join(pieces) == tokens.decode(written.tolist())

    stream = tokens.stream()
    fed = [stream.feed(token) for token in ids]
    assert "".join(fed) + stream.finish() == TEXT
    assert "\ufffd" not in "".join(fed)
