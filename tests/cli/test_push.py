"""Tests of `lmzoo push`, and of `lmzoo import hf:`, against a server on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import Command
from tests.hf.hub_server import COMMIT, TOKEN, serving


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub about httpx
def test_push_and_import_again(lmzoo: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "exported"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "README.md", "notes.txt"):
        (folder / name).write_text(f"# {name}\n")
    with serving(monkeypatch, str(tmp_path / "cache")) as server:
        shown = lmzoo("push", folder, "me/mine", "--dry-run")
        assert (shown.code, shown.out) == (0, "")
        assert shown.err.splitlines() == [
            "3 files, 46 B, for me/mine:",
            "  README.md  12 B",
            "  config.json  14 B",
            "  model.safetensors  20 B",
            "left out: notes.txt",
        ]
        assert server.repositories == {}
        pushed = lmzoo("push", folder, "me/mine", "--private", "--message", "First")
        assert (pushed.code, pushed.out) == (0, f"uploaded {server.address}/me/mine/commit/{COMMIT}\n")
        assert (server.messages, server.private) == (["First"], {"me/mine"})
        imported = lmzoo("import", "hf:me/mine", tmp_path / "out")
        assert imported.code == 2, "config.json is no JSON"
        first, second = imported.err.splitlines()
        assert first == f"fetching 2 files, 34 B, of hf:me/mine at {COMMIT[:12]}"
        assert "config.json: is not JSON" in second
        missing = lmzoo("import", "hf:me/other", tmp_path / "out")
        assert (missing.code, missing.out, missing.err.count("\n")) == (2, "", 1)
        assert not (tmp_path / "out").exists()
        assert TOKEN not in shown.err + pushed.out + pushed.err + imported.err + missing.err
    refused = lmzoo("push", tmp_path, "me/mine")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
