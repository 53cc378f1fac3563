"""Hugging Face: checkpoints of transformers as models of lmzoo, and models of lmzoo in transformers.

For checkpoints there is one map of weight names per family, as data, and the function that applies it.
"""

from __future__ import annotations

from lmzoo.errors import InputError


def register() -> None:
    """Makes models of lmzoo known to transformers' Auto classes: `AutoModelForCausalLM`, `pipeline`, `Trainer`.

    Raises `InputError` without the package transformers.
    """
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise InputError("lmzoo.hf.register() needs the package transformers: pip install transformers") from None
    from lmzoo.hf import causal_lm

    causal_lm.register()
