"""Tests the command `lmzoo probe`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lmzoo.cli.probe import complete_probes, probe
from tests.cli.commands import Command

QUICK = ["--steps", "3", "--set", "batch_size=4"]


def test_probe_prints_a_table_and_json(lmzoo: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = lmzoo("probe", "bigram", "--probes", "s3,parity", "--out", out, *QUICK)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].split() == ["probe", "length", "chance", "solved", "bigram"]
    assert [line.split()[0] for line in lines[2:6]] == ["s3", "32", "parity", "64"]
    assert "s3 easy, bigram, seed 1337: accuracy 0." in result.err
    tables = json.loads((out / "probes.json").read_text())
    again = lmzoo("probe", "bigram", "--probes", "s3,parity", "--out", out, "--json", *QUICK)
    assert json.loads(again.out) == tables
    assert "checking" not in again.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bigram", "--probes", "pairity"], "probes='pairity' is not a probe; did you mean 'parity'?"),
        (["bigram", "--difficulty", "simple"], "difficulty='simple' is not a difficulty"),
        (["bigrum"], "did you mean 'bigram'?"),
        (["bigram", "--probes", "s\x1b[2J"], r"s\x1b[2J"),
        (["bigram", "--steps", "0"], "0 is not in the range"),
        (["bigram", "--workers", "0"], "workers=0 must be an integer in [1, "),
        (["bigram", "--device", "gpu"], "device='gpu' must be 'cpu' or 'cuda'"),
    ],
)
def test_probe_refuses_bad_input_in_one_line(
    lmzoo: Command, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = lmzoo("probe", *arguments, "--out", tmp_path / "out")
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_probe_trains_several_cells_at_once(lmzoo: Command, tmp_path: Path) -> None:
    several = ["bigram", "--probes", "s3,parity", "--workers", "2", "--device", "cpu", *QUICK]
    result = lmzoo("probe", *several, "--out", tmp_path)
    assert result.code == 0, result.err
    assert "s3 easy, bigram, seed 1337: done" in result.err
    assert [cell["probe"] for cell in json.loads((tmp_path / "probes.json").read_text())["cells"]] == ["s3", "parity"]


def test_probe_completes_the_last_name_of_a_list() -> None:
    with probe.make_context("probe", ["bigram"]) as context:
        found = [item.value for item in complete_probes(context, probe.params[1], "mqar,s")]
    assert found == ["mqar,s3", "mqar,s5"]


def test_probe_help_names_every_probe() -> None:
    from lmzoo.data.probes import PROBES

    text = " ".join(CliRunner().invoke(probe, ["--help"]).output.split())
    assert f"{', '.join(PROBES)}." in text
