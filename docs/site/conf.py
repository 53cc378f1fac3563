"""Settings of Sphinx for the documentation site; `scripts/docs` builds it from the sources that sources.py collects."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import lmzoo  # noqa: E402 (found on the path above)

project = "lmzoo"
author = "lmzoo contributors"
copyright = author
release = version = lmzoo.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "extension"]
source_suffix = {".md": "markdown"}
templates_path = ["templates"]
pygments_dark_style = "github-dark"  # of the pages that `lmzoo show --open` makes too; furo's own underlines names
highlight_language = "none"  # of an indented block, which may hold commands, equations or a tree of files

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # the anchors that GitHub gives to headings
myst_links_external_new_tab = False

default_role = "literal"  # docstrings have Markdown's `code`
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = "lmzoo"
PACKAGE = HERE.parent.parent / "lmzoo"
html_static_path = ["static", str(PACKAGE / "gallery" / "gallery.css"), str(PACKAGE / "gallery" / "gallery.js")]
html_css_files = ["site.css", "gallery.css"]
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"  # drawn by the browser: no script, no font
html_search_language = "mixed"
html_show_search_summary = False  # the browser cannot read other pages of file://
