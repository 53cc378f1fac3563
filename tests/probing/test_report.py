"""Tests the page of probes: every level, length and model, shades, and that outside text is escaped."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from lmzoo.probing.report import FULL, heat_map, html, progress, write_report
from tests.compare.example import HOSTILE
from tests.compare.test_report import read
from tests.probing.example import cell, example


def test_heat_map_has_two_lines_for_each_level_and_a_column_for_each_model() -> None:
    text = heat_map(example())
    assert re.findall(r'scope="row">([^<]*)<small>([^<]*)</small>', text) == [
        ("mqar easy", "32 tokens, chance 0.250, solved 0.990"),
        ("mqar easy", "64 tokens, chance 0.250, solved 0.990"),
        ("parity easy", "16 tokens, chance 0.500, solved 0.990"),
        ("parity easy", "64 tokens, chance 0.500, solved 0.990"),
    ]
    assert re.findall(r'data-label="guesser"[^>]*>([^<]*)<', text) == ["○ 0.250", "0.600", "diverged", "diverged"]
    shades = re.findall(r'data-label="(\w+)"(?: style="background: color-mix\(in srgb, var\(--s2\) (\d+)%)?', text)
    assert shades[:4] == [("solver", f"{FULL}"), ("guesser", "0"), ("solver", f"{FULL}"), ("guesser", "31")]
    assert shades[5] == ("guesser", ""), "a run without an accuracy has no shade"


def test_progress_is_the_share_of_the_way_from_chance_to_solved() -> None:
    cells = [cell("a", "mqar", 1, 0.5, 0.2), cell("a", "mqar", 2, 0.7, 1.0)]
    assert progress(cells, trained=True, chance=0.2, solved=1.0) == pytest.approx(0.5)
    assert progress(cells, trained=False, chance=0.6, solved=0.9) == 0
    assert progress(cells[1:], trained=False, chance=0.6, solved=0.9) == 1
    assert progress([*cells, cell("a", "mqar", 3, None, None)], trained=True, chance=0.2, solved=1.0) is None
    assert progress([], trained=True, chance=0.2, solved=1.0) is None


def test_html_is_whole_escaped_and_without_scripts(tmp_path: Path) -> None:
    results = example()
    name = f'{HOSTILE}" onclick="x'
    cells = [dataclasses.replace(found, model=name) for found in results.cells[-2:]]
    hostile = dataclasses.replace(results, cells=[*results.cells, *cells])
    page = write_report(hostile, tmp_path).read_text(encoding="utf-8")
    assert '" onclick="' not in page
    reader = read(page)
    assert not {"script", "img"} & set(reader.tags)
    assert f"{name} on parity easy diverged: the loss is nan" in reader.text
    assert "3 models on 2 probes" in reader.text
    assert "Means over the seeds" in reader.text
    train = {"train": {"steps": 500, "batch_size": 64}}
    told = dataclasses.replace(results, cells=[dataclasses.replace(cell, settings=train) for cell in results.cells])
    assert "500 steps of 64 sequences" in read(html(told)).text
    alone = read(html(dataclasses.replace(results, cells=results.cells[2:3]))).text
    assert "1 model on" in alone
    assert "Means over" not in alone
    assert "Without an accuracy" not in alone
