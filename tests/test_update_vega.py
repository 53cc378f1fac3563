"""Tests that the copy of Vega-Lite is the one that the pinned vl-convert bundles, and can stand in a page."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import update_vega


def test_bundle_is_the_file_in_the_package() -> None:
    assert update_vega.FILE.read_text(encoding="utf-8") == update_vega.bundle()


def test_bundle_can_stand_inside_a_script_element() -> None:
    text = update_vega.FILE.read_text(encoding="utf-8")
    assert "</script" not in text.lower()
    assert "<!--" not in text
