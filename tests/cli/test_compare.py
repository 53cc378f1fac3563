"""Tests of `lmzoo compare`: the table, JSON, and a file in the place of a name."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commands import QUICK, Command

MODEL = """
import lmzoo
from lmzoo.backbones.bigram import Bigram

@lmzoo.register_model("compared")
class Compared(Bigram):
    pass
"""


def test_compare_prints_the_table_or_json(lmzoo: Command, text: Path) -> None:
    plugin = text.parent / "compared.py"
    plugin.write_text(MODEL)
    command = ["compare", "bigram.tiny", plugin, "--data", text, "--out", text.parent / "out", *QUICK]
    result = lmzoo(*command)
    assert result.code == 0, result.err
    assert result.out.startswith("sheep.txt, tokenizer char: 4 steps")
    assert "compared" in result.out
    assert "checking" not in result.out, "progress goes to stderr"
    assert "compared (2 of 2): checking" in result.err
    tables = json.loads(lmzoo(*command, "--json").out)
    assert {row["name"] for row in tables["models"]} == {"bigram.tiny", "compared"}
