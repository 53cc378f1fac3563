"""Builds the site: collects the sources, runs Sphinx with warnings as errors, and follows every link of the pages."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gallery_pages import write_gallery
from links import broken_links
from sources import ROOT, collect
from sphinx.cmd.build import build_main

HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "docs"


def build(folder: Path, root: Path = ROOT, families: Sequence[str] | None = None) -> list[str]:
    """Builds the site of the repository `root` in `folder`/html, with all families or some; returns its dead links.

    Raises `SystemExit` with Sphinx's exit code if there is a warning or an error.
    """
    source, html = folder / "source", folder / "html"
    shutil.rmtree(html, ignore_errors=True)  # no page stays whose source is gone
    collect(source, root)
    write_gallery(source / "gallery", families)
    options = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(HERE), "-d", str(folder / "doctrees")]
    if code := build_main([*options, str(source), str(html)]):
        raise SystemExit(code)
    return broken_links(html)


def main() -> None:
    """Builds the site in build/docs/html."""
    began = time.monotonic()
    if broken := build(BUILD):
        sys.exit("\n".join(f"docs: {problem}" for problem in broken))
    print(f"docs: {BUILD / 'html' / 'index.html'} ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    main()
