"""Transplants: the mixers of some layers of a trained model, replaced by mixers of another family.

`lmzoo.transplant(...)` is the function `lmzoo.api.transplant`.
"""

from lmzoo.packages import make_callable

make_callable(__name__)
