"""Builds the site: collects the sources, runs Sphinx with warnings as errors, and follows every link of the pages."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from gallery_pages import write_gallery, write_vega
from links import broken_links
from sources import ROOT, collect
from sphinx.cmd.build import build_main

HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "docs"


def main() -> int:
    """Builds the site in build/docs/html; returns the exit code."""
    began = time.monotonic()
    html = BUILD / "html"
    shutil.rmtree(html, ignore_errors=True)  # no page stays whose source is gone
    collect(BUILD / "source")
    write_gallery(BUILD / "source" / "gallery")
    write_vega(BUILD / "static")
    options = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(HERE), "-d", str(BUILD / "doctrees")]
    code = build_main([*options, str(BUILD / "source"), str(html)])
    broken = broken_links(html) if code == 0 else []
    for problem in broken:
        print(f"docs: {problem}", file=sys.stderr)
    if code == 0 and not broken:
        print(f"docs: {html / 'index.html'} ({time.monotonic() - began:.0f} s)")
    return code or bool(broken)


if __name__ == "__main__":
    sys.exit(main())
