"""Drawings of architectures: `draw` reads a model's module tree, `text` prints the result.

There is no second source beside the modules, so a drawing cannot disagree with the code.
"""

from lmzoo.drawing.modules import draw
from lmzoo.drawing.plain_text import text
from lmzoo.drawing.tree import Drawing

__all__ = ["Drawing", "draw", "text"]
