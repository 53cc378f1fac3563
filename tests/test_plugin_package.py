"""Tests the template of docs/plug-ins.md: built as a wheel, installed in a scratch environment, used like a family."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "docs/examples/moving-average"
NAME = "moving-average"
DATA = ["--data", "text.txt", "--set", "steps=2", "--set", "batch_size=2"]
# The commands of one process, so that torch is imported once. Each prints what follows the line with its words.
COMMANDS = [
    ["list", "moving*"],
    ["show", f"{NAME}.tiny"],
    ["train", f"{NAME}.tiny", *DATA, "--out", "run"],
    ["sample", "run", "--prompt", "a", "--tokens", "4"],
    ["compare", "bigram", f"{NAME}.tiny", *DATA, "--out", "both"],
    ["export", "run", "exported"],
    ["sample", "exported", "--prompt", "a", "--tokens", "4"],
    ["pytest", "-q", "-p", "no:cacheprovider", "tests"],  # the package's own tests
    ["check", NAME, "--only", "causality"],  # the last: it ends the process without the interpreter's clean-up
]
SCRIPT = """
import json, sys
import pytest
from lmzoo.cli import cli
for command in json.loads(sys.argv[1]):
    print("##", *command, flush=True)
    if command[0] == "pytest":
        code = pytest.main(command[1:])
    else:
        code = cli.main(command, prog_name="lmzoo", standalone_mode=False)
    assert not code, f"exit code {code}"
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the plug-in installed; the other packages are those of the tests."""
    folder = tmp_path_factory.mktemp("plug-in")
    shutil.copytree(TEMPLATE, folder / "source")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, folder / "source"]
    subprocess.run(build, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    site = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
    (Path(site) / "tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    wheel = next(folder.glob("*.whl"))
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", wheel]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *install], check=True)
    return python


def test_plugin_package_works_in_all_commands_and_passes_its_own_tests(python: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a moving average forgets slowly. " * 200)
    shutil.copytree(TEMPLATE / "tests", tmp_path / "tests")
    # Without settings of this process; no line of a table is broken; pytest imports no plug-ins of other packages.
    env = {name: os.environ[name] for name in ("PATH", "HOME", "OMP_NUM_THREADS") if name in os.environ}
    env |= {"COLUMNS": "200", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [python, "-c", SCRIPT, json.dumps(COMMANDS)]
    ran = subprocess.run(command, cwd=tmp_path, env=env, text=True, capture_output=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    printed = dict(part.split("\n", 1) for part in ran.stdout.split("## ")[1:])
    by_command = {command.split()[0]: text for command, text in printed.items()}
    assert "Each channel keeps a learned fraction of its memory" in by_command["list"]
    assert "The equations" in by_command["show"]  # the card of the package
    assert "a first guess" in by_command["show"]  # the source of its preset
    assert "2 passed" in by_command["pytest"]
    assert "all checks passed" in by_command["check"]
    config = json.loads((tmp_path / "exported/config.json").read_text())
    assert (config["model_type"], config["lmzoo"]["model"]) == ("lmzoo", NAME)
    assert "The mixer keeps one number for each channel" in (tmp_path / "exported/README.md").read_text()
    compared = json.loads((tmp_path / "both/results.json").read_text())["models"]
    assert f"{NAME}.tiny" in [model["name"] for model in compared]


def test_plugin_package_names_agree() -> None:
    project = tomllib.loads((TEMPLATE / "pyproject.toml").read_text())
    (entry,) = project["project"]["entry-points"]["lmzoo.backbones"].items()
    assert entry == (NAME, "lmzoo_moving_average.model")
    assert {path.name for path in (TEMPLATE / "lmzoo_moving_average/registry").iterdir()} == {NAME}
