"""Collects the pages of the site in one folder: the Markdown files of the repository, with links between the pages.

No page is written twice. A file keeps its text; only its links are turned to the place of the page in the site.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent.parent
START = {"README.md": "index.md", "README.zh-CN.md": "zh.md"}
PROJECT = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
REFERENCE = ("contract", "api", "results", "families", "glossary")
ABOUT = ("architecture", "reliability", "log", "changelog", "contributing", "course/README", "security", "cite")
# In the order in which a reader needs them; other files of docs/ follow by name.
GUIDES = ("python", "add-a-backbone", "compare", "data", "probes", "scale", "settings")
OWN = {"docs/site/api.md": "api.md"}  # other files of docs/site/ are not pages

_FENCE = re.compile(r"^(```|~~~).*?^\1[`~]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(?=[#)\s])")


def pages(root: Path = ROOT) -> dict[str, str]:
    """Returns the place in the site of each Markdown file of the repository that becomes a page, by its path."""
    docs = (path.relative_to(root).as_posix() for path in sorted((root / "docs").rglob("*.md")))
    found = {path: place for path, place in {**START, **PROJECT, **OWN}.items() if (root / path).is_file()}
    # The card of a template is a part of its package.
    found |= {p: place_of(p) for p in docs if not p.startswith("docs/site/") and "/registry/" not in p}
    cards = (path.relative_to(root).as_posix() for path in sorted((root / "registry").glob("*/card.md")))
    return found | {path: f"gallery/{PurePosixPath(path).parent.name}.md" for path in cards}


def place_of(path: str) -> str:
    """Returns the place in the site of a file that keeps its name."""
    return path.removeprefix("docs/")


def with_links(text: str, source: str, places: dict[str, str], copied: Callable[[str], None]) -> str:
    """Returns the Markdown `text` of the file `source` with its relative links turned to the places in the site.

    `copied` is called with each linked file that is no page: it must be copied to its place (`place_of`).
    """
    here = PurePosixPath(places[source]).parent

    def turned(match: re.Match[str]) -> str:
        target = os.path.normpath(PurePosixPath(source).parent / match[1]).replace(os.sep, "/")
        if target not in places:
            copied(target)
        return os.path.relpath(places.get(target, place_of(target)), here).replace(os.sep, "/")

    parts: list[str] = []
    end = 0
    for fence in _FENCE.finditer(text):  # no link in code is one
        parts += [_LINK.sub(turned, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(turned, text[end:])])


def collect(folder: Path, root: Path = ROOT) -> None:
    """Writes the pages from Markdown files of the repository, the tables of contents and the page on citing.

    The pages of the gallery are written by gallery_pages.py, from registry and code.
    """
    shutil.rmtree(folder, ignore_errors=True)
    places = pages(root)
    others = {path.relative_to(root).as_posix() for path in (root / "docs").rglob("*.ipynb")}
    for source, place in places.items():
        if not place.startswith("gallery/"):
            text = with_links((root / source).read_text(encoding="utf-8"), source, places, others.add)
            write(folder / place, text + (contents([*places.values(), "cite.md"]) if source == "README.md" else ""))
    for other in sorted(others):
        if (root / other).is_file():  # or else Sphinx names the link
            place = folder / place_of(other)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / other, place)
    write(folder / "cite.md", cite(root))


def write(path: Path, text: str) -> None:
    """Writes a file, and its folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def contents(places: Iterable[str]) -> str:
    """Returns the tables of contents of the site, in MyST."""
    names = [place.removesuffix(".md") for place in places]
    english, chinese = (
        sorted((name for name in names if name.startswith(f"course/{language}/")), key=_index_first)
        for language in ("en", "zh")
    )
    placed = {*REFERENCE, *ABOUT, *GUIDES, "index", "zh", *english, *chinese}
    others = sorted(name for name in names if name not in placed and not name.startswith("gallery/"))
    guides, reference, about = ([name for name in known if name in names] for known in (GUIDES, REFERENCE, ABOUT))
    captions = {
        "Start": ["README <self>", "中文 <zh>"],
        "Course": english,
        "课程": chinese,
        "Gallery": ["gallery/index"],
        "Guides": [*guides, *others],
        "Reference": reference,
        "Project": about,
    }
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(entries) + "\n```\n"
        for caption, entries in captions.items()
        if entries
    )


def _index_first(name: str) -> tuple[bool, str]:
    return not name.endswith("/index"), name


def cite(root: Path) -> str:
    """Returns the page on how to cite lmzoo, from CITATION.cff."""
    text = (root / "CITATION.cff").read_text(encoding="utf-8")
    fields = {name: value.strip('"') for name, value in re.findall(r"^([a-z-]+): *(.+)$", text, re.MULTILINE)}
    (author,) = re.findall(r"^  - name: (.+)$", text, re.MULTILINE)
    year = fields["date-released"].partition("-")[0]
    entry = (
        f"@software{{lmzoo,\n  author = {{{{{author}}}}},\n  title = {{{fields['title']}}},\n  year = {{{year}}},\n"
        f"  version = {{{fields['version']}}},\n  license = {{{fields['license']}}},\n}}"
    )
    return (
        f"# How to cite\n\n{fields['message']} The page of each family in the gallery has the papers of the "
        f"architecture in BibTeX.\n\n```bibtex\n{entry}\n```\n\nThe same as `CITATION.cff`, which hosts of "
        f"repositories read:\n\n```yaml\n{text}```\n"
    )
