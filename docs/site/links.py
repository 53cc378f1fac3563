"""Follows the links of built pages: each must lead to a file of the site, and its anchor to an element of that file."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """Collects the targets and the anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.add(value)
            elif name == "id" and value:
                self.anchors.add(value)


def broken_links(folder: Path) -> list[str]:
    """Returns a line for each link of the pages in `folder` that leads to no file of it, or to no anchor."""
    pages = {}
    for path in sorted(folder.rglob("*.html")):
        page = pages[path] = _Page()
        page.feed(path.read_text(encoding="utf-8"))
    problems = []
    for path, page in pages.items():
        for target in sorted(page.targets):
            url = urlsplit(target)
            if url.scheme or url.netloc:
                continue
            file = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not file.is_file():
                problems.append(f"{path.relative_to(folder)}: {target}: there is no such file")
            elif url.fragment and file in pages and unquote(url.fragment) not in pages[file].anchors:
                problems.append(f"{path.relative_to(folder)}: {target}: there is no such anchor")
    return problems
