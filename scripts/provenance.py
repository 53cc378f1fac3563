"""The circumstances of a measured figure: hardware, versions, commit and date."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path
from typing import Any

import torch

from lmzoo.hardware import hardware, versions

ROOT = Path(__file__).resolve().parent.parent


def circumstances() -> dict[str, Any]:
    """Return what a figure depends on besides its settings."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return {
        "hardware": hardware(torch.device("cpu")),
        "versions": versions(),
        "commit": commit.stdout.strip(),
        "date": today,
    }
