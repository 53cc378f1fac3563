"""Tests that the files about the repository (citation, security policy, workflow) agree with the package."""

from __future__ import annotations

import os
import re
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
