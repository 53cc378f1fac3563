"""Opens the page of a family in a browser."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path

import lmzoo
from lmzoo.gallery.facts import gather
from lmzoo.gallery.page import standalone

SITE = Path(lmzoo.__file__).parent.parent / "build" / "docs" / "html"  # made by scripts/docs in a checkout


def open_page(family: str) -> Path:
    """Opens the page of a family and returns its file: of the built site, or else one made now in a temporary folder.

    Raises `UnknownModelError` for an unknown name.
    """
    path = SITE / "gallery" / f"{family}.html"
    if not path.is_file():
        path = Path(tempfile.mkdtemp(prefix="lmzoo-")) / f"{family}.html"
        path.write_text(standalone(gather(family)), encoding="utf-8")
    webbrowser.open(path.as_uri())
    return path
