"""Tests that the files about the repository (citation, security policy, workflow) agree with the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import lmzoo

ROOT = Path(__file__).parent.parent


def test_citation_has_the_required_fields_and_the_version_of_the_package() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^([a-z-]+): *(.*)$", text, re.MULTILINE))
    assert {"cff-version", "message", "title", "authors"} <= set(fields)  # required by the schema
    assert fields["cff-version"] == "1.2.0"
    assert fields["version"] == lmzoo.__version__
    assert fields["license"] == "MIT"


def test_security_policy_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert links
    assert all((ROOT / link).is_file() for link in links)


def test_workflow_runs_the_ci_script() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    (command,) = re.findall(r"^ *- run: (.*)$", text, re.MULTILINE)
    assert command == ".ci/run"
    assert os.access(ROOT / command, os.X_OK)


def test_shell_scripts_show_their_help_from_any_folder_and_make_nothing(tmp_path: Path) -> None:
    for name in ("setup", "demo", "test"):
        (tmp_path / "scripts").mkdir(exist_ok=True)
        script = shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
        for words in ([f"./{name}"], [script]):
            done = subprocess.run([*words, "--help"], cwd=tmp_path / "scripts", capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, ""), words
            assert f"  scripts/{name}" in done.stdout
    done = subprocess.run([str(tmp_path / "scripts/demo"), "--out"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "demo: --out needs a directory\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scripts"]


def test_every_python_script_without_a_suffix_is_linted() -> None:
    files = [path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix]
    programs = {f"scripts/{path.name}" for path in files if "python3" in path.read_text().partition("\n")[0]}
    linted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["extend-include"]
    assert set(linted) == programs


def test_no_page_sends_a_reader_to_a_package_index() -> None:
    """The name is not ours there: whoever follows such a link may install the package of somebody else."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "registry").glob("*/card.md")]
    assert len(pages) > 60
    for page in pages:
        assert "pypi.org/project/lmzoo" not in page.read_text(encoding="utf-8"), page
