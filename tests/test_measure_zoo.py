"""Tests scripts/measure_zoo: its command, and that it and all others start in the environment of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import load_script

SCRIPTS = Path(__file__).parents[1] / "scripts"


def test_scripts_start_anew_in_the_environment_from_any_folder(tmp_path: Path) -> None:
    """Python without packages (-S) reaches that of .venv, where a stub prints the arguments."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages, program = tmp_path / ".venv/lib" / version / "site-packages", tmp_path / ".venv/bin/python"
    for folder in (tmp_path / "scripts", packages, program.parent):
        folder.mkdir(parents=True)
    base = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    program.symlink_to(base)
    (tmp_path / ".venv/pyvenv.cfg").write_text(f"home = {base.parent}\n")
    stub = "import os, sys\nprint(sys.prefix, *sys.orig_argv[1:], flush=True)\nos._exit(0)\n"
    (packages / "sitecustomize.py").write_text(stub)
    programs = [path for path in SCRIPTS.iterdir() if path.is_file() and os.access(path, os.X_OK)]
    found = [path for path in programs if path.read_text(encoding="utf-8").startswith("#!/usr/bin/env python3")]
    assert {"measure_zoo", "noise_check", "stress", "tune_presets"} <= {path.name for path in found}
    for path in found:
        script = shutil.copy(path, tmp_path / "scripts")
        command = [base, "-S", script, "--some", "option"]
        done = subprocess.run(command, cwd=tmp_path / "scripts", capture_output=True, text=True, timeout=20)
        assert (done.stdout, done.stderr) == (f"{tmp_path / '.venv'} {script} --some option\n", ""), path


def test_command_is_a_comparison_with_seeds_and_a_tuned_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    words = load_script("measure_zoo", monkeypatch).command(["gpt2", "mamba"], "runs/zoo")
    assert words[:3] == ["compare", "gpt2.1m", "mamba.1m"]
    assert words[words.index("--seeds") + 1] == "3"
    assert words[words.index("--tune") + 1].startswith("learning_rate=")
