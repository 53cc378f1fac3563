"""Tests of `lmzoo report`: the same files as those of the comparison, and figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lmzoo.compare.comparison import write
from lmzoo.compare.results import FILE, write_results
from lmzoo.compare.series import Scaling
from lmzoo.compare.series import write as write_scaling
from lmzoo.compare.write import write_report
from lmzoo.probing import results as probe_results
from tests.cli.commands import Command
from tests.compare.example import everything, example, model
from tests.probing import example as probe_example


def test_report_makes_the_files_of_a_comparison_anew(lmzoo: Command, tmp_path: Path) -> None:
    write(everything(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    paths = [tmp_path / name for name in ("report.html", "table.md", "papers.bib")]
    for path in paths:
        path.unlink()
    found = lmzoo("report", tmp_path)
    assert (found.code, found.out) == (0, "".join(f"{path}\n" for path in paths))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_report_writes_figures(lmzoo: Command, tmp_path: Path) -> None:
    plain = {"curve": (), "params": 0, "state_bytes": 0, "flops_per_token": 0.0}
    speeds = {"train_tokens_per_s": None, "decode_tokens_per_s": None}
    write_results(dataclasses.replace(example(), models=[model("a", 1.5, **plain, **speeds)]), tmp_path)
    found = lmzoo("report", tmp_path, "--figures")
    assert found.code == 0, found.err
    path = tmp_path / "figures" / "ranking-loss.svg"
    assert path.read_text(encoding="utf-8").startswith("<svg")
    assert f"{path}\n" in found.out


def test_report_makes_the_reports_of_all_sizes(lmzoo: Command, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("params=300000", "params=1000000", "params=3000000")]
    for folder in folders:
        write(everything(), folder)
        (folder / "report.html").unlink()
    write_scaling(Scaling(sizes=[3e5, 1e6, 3e6]), tmp_path)
    pages = [tmp_path / name for name in ("scaling.html", "scaling.md")]
    for page in pages:
        page.unlink()
    found = lmzoo("report", tmp_path)
    assert found.code == 0, found.err
    names = ("report.html", "table.md", "papers.bib")
    reports = [folder / name for folder in folders for name in names]
    assert found.out == "".join(f"{path}\n" for path in [*reports, *pages])
    assert "3 M parameters" in pages[0].read_text(encoding="utf-8").replace("3.00", "3")
    assert all((folder / "report.html").exists() for folder in folders)
    (folders[1] / FILE).write_text("{}")
    (folders[0] / "table.md").unlink()
    assert lmzoo("report", tmp_path).code == 2
    assert not (folders[0] / "table.md").exists(), "nothing is written if one cannot be read"


def test_report_makes_the_reports_of_the_sizes_that_an_interrupted_comparison_has(
    lmzoo: Command, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("params=300000", "params=1000000")]
    for folder in folders:
        write(everything(), folder)
    assert lmzoo("report", tmp_path).out.count("report.html") == 2
    fields = {"models": everything().models[1:], "statistics": None, "tuning": {}, "complete": False}
    write(dataclasses.replace(everything(), **fields), tmp_path / "params=3000000")
    found = lmzoo("report", tmp_path)
    assert found.code == 0, found.err
    assert "This comparison is not finished" in (tmp_path / "scaling.md").read_text(encoding="utf-8")


def test_report_refuses_a_folder_without_results(lmzoo: Command, tmp_path: Path) -> None:
    write_report(everything(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / FILE).write_text('{"schema": 2, "corpus": "\x1b[31m"}'.replace("\x1b", "\\u001b"))
    found = lmzoo("report", tmp_path)
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith(f"lmzoo: {tmp_path / FILE}: ")
    assert found.err.count("\n") == 1
    assert "\x1b" not in found.err
    assert {path: path.read_bytes() for path in before} == before


def test_report_makes_the_page_of_probes(lmzoo: Command, tmp_path: Path) -> None:
    probe_results.write_results(probe_example.example(), tmp_path)
    found = lmzoo("report", tmp_path)
    assert (found.code, found.out) == (0, f"{tmp_path / 'probes.html'}\n")
    page = (tmp_path / "probes.html").read_bytes()
    assert b"mqar easy" in page
    found = lmzoo("report", tmp_path, "--figures")
    assert (found.code, found.err) == (
        2,
        f"lmzoo: {tmp_path}: --figures needs results.json: a page of probes has no figures\n",
    )
    (tmp_path / "probes.json").write_text('{"schema": 1, "levels": [], "cells": [], "hardware": {}, "versions": []}')
    found = lmzoo("report", tmp_path)
    assert (found.code, found.out) == (2, "")
    assert found.err == f"lmzoo: {tmp_path / 'probes.json'}: holds no results of probes (versions is not an object)\n"
    assert (tmp_path / "probes.html").read_bytes() == page
