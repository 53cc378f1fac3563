"""The target of `lmzoo check`: a registered name, a Python file that registers models, or a run."""

from __future__ import annotations

import os

from lmzoo import targets
from lmzoo.model import LanguageModel
from lmzoo.storage import models


def subjects(target: str) -> list[str] | list[LanguageModel]:
    """Returns the models that `target` stands for, as names or instances for `check_model`.

    Raises an `LmzooError` for an unknown name, a file that registers no model, or a run that cannot be loaded.
    """
    if not targets.is_file(target) and os.path.isdir(target):
        return [models.load_model(target)]
    return targets.model_names(target)
