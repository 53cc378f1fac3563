"""The architectures of GGUF that models of lmzoo have; a module describes those of related families.

The names are those of the package `gguf`; keys and layouts are those that llama.cpp's converter writes. The first form
that fits a model is taken.
"""

from __future__ import annotations

from lmzoo.gguf.expert_forms import EXPERT_FORMS
from lmzoo.gguf.form import Form
from lmzoo.gguf.gpt_forms import GPT_FORMS
from lmzoo.gguf.grouped_forms import GROUPED_FORMS
from lmzoo.gguf.hybrid_forms import HYBRID_FORMS
from lmzoo.gguf.llama_forms import LLAMA_FORMS
from lmzoo.gguf.mamba_forms import MAMBA_FORMS
from lmzoo.gguf.recurrent_forms import RECURRENT_FORMS

FORMS: tuple[Form, ...] = (
    *(*LLAMA_FORMS, *EXPERT_FORMS, *GROUPED_FORMS, *GPT_FORMS, *RECURRENT_FORMS, *HYBRID_FORMS, *MAMBA_FORMS),
)
