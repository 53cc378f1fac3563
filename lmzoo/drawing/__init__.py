"""Drawings of architectures: `draw` reads a model's module tree, `text` and `svg` show the result.

A drawing has no source other than the modules, so it always agrees with the code.
"""

from lmzoo.drawing.modules import draw
from lmzoo.drawing.plain_text import text
from lmzoo.drawing.svg import svg
from lmzoo.drawing.tree import Drawing

__all__ = ["Drawing", "draw", "svg", "text"]
