"""The gallery: a page for each family, and an overview of all, made from the registry, the code and the results.

The documentation site takes its pages from here, and `lmzoo show NAME --open` opens one.
"""

from __future__ import annotations

from lmzoo.gallery.facts import Facts, gather
from lmzoo.gallery.page import Section, lead, sections, standalone

__all__ = ["Facts", "Section", "gather", "lead", "sections", "standalone"]
