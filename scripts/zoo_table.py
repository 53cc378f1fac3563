"""Makes the table of families in README.md and README.zh-CN.md from registry/*/presets.toml and results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmzoo import entries

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("classic", "attention", "linear", "hybrid")
MARKS = "<!-- written by scripts/measure_zoo --table -->", "<!-- end -->"
# Words of the table in each language; `summary` is the fact that holds the idea of a family.
WORDS: Mapping[str, Mapping[str, str]] = {
    "README.md": {
        "summary": "summary", "head": "| family | year | state | past its context | bits/byte | idea |",
        "classic": "classics", "attention": "attention", "linear": "linear and recurrent", "hybrid": "hybrids",
        "none": "none", "constant": "constant", "logarithmic": "logarithmic", "linear state": "linear",
        "yes": "goes on", "no": "slides a window", "loss": " bits/byte |",
    },
    "README.zh-CN.md": {
        "summary": "summary_zh", "head": "| 家族 | 年份 | 状态 | 超出上下文 | 比特/字节 | 思路 |",
        "classic": "经典模型", "attention": "注意力", "linear": "线性与循环", "hybrid": "混合",
        "none": "无", "constant": "固定", "logarithmic": "对数", "linear state": "线性增长",
        "yes": "照常", "no": "滑动窗口", "loss": " 比特/字节 |",
    },
}  # fmt: skip


def results(folder: Path) -> dict[str, Any] | None:
    """Returns the measured results of a family, or None if it has none."""
    path = folder / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def table(readme: str) -> str:
    """Returns the Markdown table in the language of that file, by kind and year; losses once they are measured."""
    words = WORDS[readme]
    families = entries.read((ROOT / "registry",))
    measured = {name: found for name in families if (found := results(ROOT / "registry" / name))}
    head = words["head"] if measured else words["head"].replace(words["loss"], "")
    columns = head.count("|") - 1
    lines = [head, "|---|---:|---|---|" + ("---:|" if measured else "") + "---|"]
    for kind in KINDS:
        lines.append(f"| **{words[kind]}** |" + " |" * (columns - 1))
        members = [family for family in families.values() if family.facts["kind"] == kind]
        for family in sorted(members, key=lambda family: (family.facts["year"], family.name)):
            facts = family.facts
            growth = words["linear state" if facts["state_growth"] == "linear" else facts["state_growth"]]
            cells = [f"[`{family.name}`](registry/{family.name}/card.md)", str(facts["year"]), growth]
            cells.append(words["yes" if facts["extrapolates"] else "no"])
            if measured:
                cells.append(_bits(measured.get(family.name, {})))
            lines.append(f"| {' | '.join([*cells, facts[words['summary']]])} |")
    return "\n".join(lines)


def _bits(measured: Mapping[str, Any]) -> str:
    """Returns the bits per byte with half of their 95 % interval; nothing if they are not measured."""
    bits = measured.get("bits_per_byte")
    if bits is None:
        return ""
    low, high = measured.get("bits_per_byte_interval", (bits, bits))
    return f"{bits:.3f} ± {(high - low) / 2:.3f}" if high > low else f"{bits:.3f}"


def with_table(text: str, readme: str) -> str:
    """Returns the text of a README with the table written between its two marks."""
    before, rest = text.split(MARKS[0], 1)
    _, after = rest.split(MARKS[1], 1)
    return f"{before}{MARKS[0]}\n\n{table(readme)}\n\n{MARKS[1]}{after}"


def write_tables() -> None:
    """Writes the tables of both files."""
    for readme in WORDS:
        path = ROOT / readme
        path.write_text(with_table(path.read_text(encoding="utf-8"), readme), encoding="utf-8")
