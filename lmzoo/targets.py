"""Models that a user names on the command line: a registered name, or a Python file that registers models."""

from __future__ import annotations

from pathlib import Path

from lmzoo import registry
from lmzoo.errors import ConfigError
from lmzoo.plugins import is_file as is_file


def model_names(target: str) -> list[str]:
    """Returns the names of the models that `target` stands for. A file is executed once, as a plug-in.

    Raises an `LmzooError` for an unknown name, or a file that registers no model.
    """
    if not is_file(target):
        registry.split_name(target)  # raises for an unknown name
        return [target]
    registry.load_plugin(target)
    names = registry.registered_from(Path(target))
    if not names:
        raise ConfigError(f"{target}: registers no model; decorate its class with @lmzoo.register_model('name')")
    return names


def model_name(target: str) -> str:
    """`model_names` where only one model can be used. Raises `ConfigError` if a file registers several."""
    names = model_names(target)
    if len(names) > 1:
        raise ConfigError(f"{target}: registers {', '.join(names)}: name one of them, with --plugin {target}")
    return names[0]
