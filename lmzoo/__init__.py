"""lmzoo: a pluggable architecture zoo for language models.

The public names, each imported when first used: `import lmzoo` alone imports neither torch nor any model.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lmzoo import hf as hf
    from lmzoo import state as state
    from lmzoo.api import compare as compare
    from lmzoo.api import inspect as inspect
    from lmzoo.api import sample as sample
    from lmzoo.api import train as train
    from lmzoo.api import transplant as transplant
    from lmzoo.conformance import check_model as check_model
    from lmzoo.data.tokenizers import load_tokenizer as load_tokenizer
    from lmzoo.decoder import Decoder as Decoder
    from lmzoo.decoder import DecoderConfig as DecoderConfig
    from lmzoo.decoder import MixerConfig as MixerConfig
    from lmzoo.decoder import MixerModel as MixerModel
    from lmzoo.errors import LmzooError as LmzooError
    from lmzoo.losses import IGNORE_INDEX as IGNORE_INDEX
    from lmzoo.model import LanguageModel as LanguageModel
    from lmzoo.model import LMOutput as LMOutput
    from lmzoo.model import ModelConfig as ModelConfig
    from lmzoo.model import Traits as Traits
    from lmzoo.registry import create_model as create_model
    from lmzoo.registry import list_models as list_models
    from lmzoo.registry import register_model as register_model
    from lmzoo.sampling import SamplingConfig as SamplingConfig
    from lmzoo.storage.models import load_model as load_model

_HOMES = {
    "Decoder": "decoder",
    "DecoderConfig": "decoder",
    "IGNORE_INDEX": "losses",
    "LMOutput": "model",
    "LanguageModel": "model",
    "LmzooError": "errors",
    "MixerConfig": "decoder",
    "MixerModel": "decoder",
    "ModelConfig": "model",
    "SamplingConfig": "sampling",
    "Traits": "model",
    "check_model": "conformance",
    "compare": "",
    "create_model": "registry",
    "hf": "",
    "inspect": "",
    "list_models": "registry",
    "load_model": "storage.models",
    "load_tokenizer": "data.tokenizers",
    "register_model": "registry",
    "sample": "api",
    "state": "",
    "train": "",
    "transplant": "",
}
__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        # With the module, Python adds "Did you mean: ...?" to a traceback.
        raise AttributeError(f"module 'lmzoo' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    home = _HOMES[name]
    return getattr(import_module(f"lmzoo.{home}"), name) if home else import_module(f"lmzoo.{name}")


def __dir__() -> list[str]:
    return __all__
