"""Writes the pages of the gallery as sources of the site, from lmzoo.gallery: a page per family, and the overview."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

from sources import write

from lmzoo import registry
from lmzoo.gallery import Facts, gather, lead, sections
from lmzoo.gallery.overview import overview


def write_gallery(folder: Path, names: Sequence[str] | None = None) -> None:
    """Writes `folder`/index.md and `folder`/FAMILY.md for each family in `names`, or for all of lmzoo."""
    families = [gather(name) for name in names or registry.families()]
    for facts in families:
        write(folder / f"{facts.family.name}.md", family_page(facts))
    families.sort(key=lambda facts: (int(facts.family.facts.get("year", 0)), facts.family.name))
    listed = "\n".join(f"{facts.title} <{facts.family.name}>" for facts in families)
    scripts = '<script src="../_static/vega.js"></script><script src="../_static/gallery.js"></script>'
    write(
        folder / "index.md",
        f"# Gallery\n\n{len(families)} architectures behind one contract. Each page is made from the code and the "
        f"registry when the site is built.\n\n{raw(overview(families) + scripts)}\n"
        f"```{{toctree}}\n:hidden:\n\n{listed}\n```\n",
    )


def write_vega(folder: Path) -> None:
    """Writes `folder`/vega.js of the reports, in a function: its names are also names in the scripts of Sphinx."""
    text = resources.files("lmzoo.compare").joinpath("vega", "vega.js").read_text(encoding="utf-8")
    write(folder / "vega.js", f"(() => {{\n{text}\n}})();\n")


def family_page(facts: Facts) -> str:
    """Returns the source of the page of a family."""
    parts = [f"# {escape(facts.title)}\n\n{raw(lead(facts))}"]
    parts += [f"## {section.title}\n\n{raw(section.body)}" for section in sections(facts)]
    return "\n".join(parts)


def raw(html: str) -> str:
    """Returns HTML as a block that Sphinx takes as it is; the fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", html)), default=0))
    return f"{fence}{{raw}} html\n{html}\n{fence}\n"
