"""What `lmzoo check` is asked to look at: a registered name, a Python file that registers models, or a run."""

from __future__ import annotations

from pathlib import Path

from lmzoo import registry
from lmzoo.errors import ConfigError
from lmzoo.model import LanguageModel
from lmzoo.storage import models


def subjects(target: str) -> list[str] | list[LanguageModel]:
    """The models that `target` stands for, each a name or an instance that `check_model` takes.

    Raises an `LmzooError` for a name that is not known, a file that registers nothing, a run that cannot be loaded.
    """
    path = Path(target)
    if path.suffix == ".py":
        registry.load_plugin(target)
        names = registry.registered_from(path)
        if not names:
            raise ConfigError(f"{target}: registers no model; decorate its class with @lmzoo.register_model('name')")
        return names
    if path.is_dir():
        return [models.load_model(path)]
    registry.split_name(target)  # raises for a name that is not known
    return [target]
