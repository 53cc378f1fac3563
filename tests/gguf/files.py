"""GGUF files that the tests write, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

import lmzoo

GPT_OSS: dict[str, Any] = {"pattern": "rope full", "sinks": True, "clamp": 7.0, "attention_bias": "all"}


def read_back(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the tensors of a file, and its metadata."""
    reader = gguf.GGUFReader(path)
    tensors = {t.name: gguf.dequantize(t.data, t.tensor_type).reshape(tuple(reversed(t.shape))) for t in reader.tensors}
    return tensors, {name: field.contents() for name, field in reader.fields.items()}


def llama(**settings: Any) -> lmzoo.LanguageModel:
    sizes = {"vocab_size": 61, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "context_length": 64}
    return lmzoo.create_model("llama", **{**sizes, **settings})
