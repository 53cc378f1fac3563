"""The target of `lmzoo check`: a registered name, a Python file that registers models, or a run."""

from __future__ import annotations

from pathlib import Path

from lmzoo import registry
from lmzoo.errors import ConfigError
from lmzoo.model import LanguageModel
from lmzoo.storage import models


def subjects(target: str) -> list[str] | list[LanguageModel]:
    """Returns the models that `target` stands for, as names or instances for `check_model`.

    Raises an `LmzooError` for an unknown name, a file that registers no model, or a run that cannot be loaded.
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
    registry.split_name(target)  # raises for an unknown name
    return [target]
