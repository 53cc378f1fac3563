"""The figures of the loss: both ways, in both precisions, and what one takes of the other."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from lmzoo.cli import cli


def test_command() -> None:
    arguments = ["bench", "loss", "--vocab-size", "50", "--tokens", "16", "--d-model", "8", "--repeats", "1"]
    arguments += ["--threads", str(torch.get_num_threads())]
    result = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).output)
    assert list(result["results"]) == ["float32", "bf16"]
    for found in result["results"].values():
        assert found["time_ratio"] == pytest.approx(found["seconds"]["chunked"] / found["seconds"]["plain"])
    shown = CliRunner().invoke(cli, arguments).output
    assert "50 tokens, 16 positions, 8 wide" in shown
    assert "bf16 chunked" in shown
