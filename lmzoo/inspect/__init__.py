"""Looks inside of models: the influence of tokens on predictions (docs/inspect.md)."""

from __future__ import annotations

from lmzoo.inspect.influence import influence

__all__ = ["influence"]
