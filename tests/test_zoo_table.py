"""The tables of families in the README files are those that scripts/zoo_table.py writes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lmzoo import entries

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import zoo_table  # noqa: E402  (from scripts/, which is no package)


@pytest.mark.parametrize("readme", zoo_table.WORDS)
def test_with_table_changes_nothing_in_the_readme(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    assert zoo_table.with_table(text, readme) == text, "run scripts/measure_zoo --table"


@pytest.mark.parametrize("readme", zoo_table.WORDS)
def test_table_has_a_row_for_each_family(readme: str) -> None:
    families = entries.read((ROOT / "registry",))
    assert {family.facts["kind"] for family in families.values()} == set(zoo_table.KINDS)
    table = zoo_table.table(readme)
    assert all(table.count(f"registry/{name}/card.md") == 1 for name in families)
