"""Errors caused by user input: one line that names the field, the value and the rule.

The command line prints the message of any `LmzooError` and exits with code 2. A bug in lmzoo is never reported as one.
"""

from __future__ import annotations

from lmzoo import humanize


class LmzooError(ValueError):
    """Base class of all errors caused by bad input. The message is one line without control characters."""

    def __init__(self, message: str) -> None:
        super().__init__(humanize.line(message))


class ConfigError(LmzooError):
    """An invalid setting: an unknown field, a wrong type, an impossible value."""


class UnknownModelError(LmzooError):
    """A model name that is not registered."""


class DataError(LmzooError):
    """Text or tokens that cannot be used: missing, empty, not UTF-8, too short, unknown characters, wrong SHA-256."""


class InputError(LmzooError):
    """An invalid argument of a model's method: ids out of range, an empty prompt, NaN logits."""


class CheckpointError(LmzooError):
    """A run or checkpoint that is missing, damaged, tampered with, or made for another configuration."""


class DivergedError(LmzooError):
    """A loss, gradient or weight that is NaN or infinite: training stopped before it was used or saved."""


class OutOfMemoryError(LmzooError):
    """Settings that need more memory than there is; the checkpoints saved before are intact."""


class LostProcessError(LmzooError):
    """A run on several processes lost one of them; the checkpoints saved before are intact."""
