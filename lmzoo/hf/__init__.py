"""Hugging Face: checkpoints of transformers as models of lmzoo and back, and models of lmzoo in transformers.

For checkpoints there is one map of weight names per family, as data, read forwards and backwards. The public names are
imported when first used, because loading a model imports parts of this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmzoo.errors import InputError

if TYPE_CHECKING:
    from lmzoo.hf.directory import export as export

_HOMES = {"export": "directory"}
__all__ = [*sorted(_HOMES), "register"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lmzoo.hf' has no attribute {name!r}")
    return getattr(import_module(f"lmzoo.hf.{_HOMES[name]}"), name)


def register() -> None:
    """Makes models of lmzoo known to transformers' Auto classes: `AutoModelForCausalLM`, `pipeline`, `Trainer`.

    Raises `InputError` without the package transformers.
    """
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise InputError("register() needs the package transformers: pip install 'lmzoo[transformers]'") from None
    from lmzoo.hf import causal_lm

    causal_lm.register()
