"""Wrong models, each with one bug that was found in published code, and the check that finds it.

A new bug is added as one small file in `exhibits/`: a docstring (the fault; then its source, as repository and issue
number), `CAUGHT_BY` (the name of the check) and `MODEL`, which overrides a part of a class of `base.py`.
"""
