"""Training: one loop for every model, and its parts: optimizers, schedules, precision, checkpoints, evaluation.

`lmzoo.train(...)` is the function `lmzoo.api.train`.
"""

from lmzoo.packages import make_callable

make_callable(__name__)
