"""The errors that are the user's to mend: one line, naming the field, the value and the rule.

The command line prints the message of any `LmzooError` and exits with code 2. A bug of ours is never one of these.
"""


class LmzooError(ValueError):
    """Base of every error that bad input causes."""


class ConfigError(LmzooError):
    """A setting that cannot be: an unknown field, a wrong type, an impossible value."""


class UnknownModelError(LmzooError):
    """A model name that is not registered."""


class DataError(LmzooError):
    """Text or tokens that cannot be used: missing, empty, not UTF-8, too short, unknown characters, a wrong hash."""


class InputError(LmzooError):
    """An argument of a call on a model that cannot be: ids out of range, an empty prompt, NaN logits."""


class CheckpointError(LmzooError):
    """A run or checkpoint that is missing, damaged, tampered with, or made for another configuration."""


class DivergedError(LmzooError):
    """A loss, a gradient or a weight that is no longer finite: training stopped before it was used or saved."""


class OutOfMemoryError(LmzooError):
    """Settings that ask for more memory than there is; what was saved before is whole."""


class LostProcessError(LmzooError):
    """A run on several processes of which one is gone; what was saved before is whole."""
