"""Models that are wrong, each in one way that was seen in somebody's code, and the check that finds it.

A bug found later is one small file in `exhibits/`: a docstring (what is wrong; then where it was seen, as repository
and number), `CAUGHT_BY` (the check's name) and `MODEL`, made from a class of `base.py`.
"""
