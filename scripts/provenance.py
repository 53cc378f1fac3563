"""The circumstances of a measured figure: hardware, versions, commit and date."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path
from typing import Any

from lmzoo.hardware import default_device, hardware, versions

ROOT = Path(__file__).resolve().parent.parent


def circumstances() -> dict[str, Any]:
    """Return what a figure depends on besides its settings."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return {
        "hardware": hardware(default_device()),
        "versions": versions(),
        "commit": _commit(),
        "date": today,
    }


def _commit() -> str | None:
    """Return the commit of the checkout; None for a copy without its history."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
