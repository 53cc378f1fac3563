"""Tests of lmzoo's own form of a Hugging Face directory: the same logits, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import lmzoo
from lmzoo.errors import CheckpointError
from lmzoo.hf.own import PREFIX, is_own, own_config
from lmzoo.storage.fingerprint import fingerprint
from lmzoo.storage.models import tensors_of
from tests.backbones.against_transformers import random_tokens
from tests.helpers import SMALL, seeded

V = 11


def written(folder: Path, **changes: Any) -> lmzoo.LanguageModel:
    """Writes a model of a family that transformers does not know; `changes` are made in its config.json."""
    model = lmzoo.create_model("retnet", vocab_size=V, generator=seeded(), **SMALL).eval()
    config = own_config(model, {"fingerprint": fingerprint(model)}) | changes
    (folder / "config.json").write_text(json.dumps(config))
    save_file({f"{PREFIX}{name}": tensor.detach() for name, tensor in tensors_of(model).items()}, _file(folder))
    return model


def _file(folder: Path) -> Path:
    return folder / "model.safetensors"


def test_own_config_describes_the_model() -> None:
    model = lmzoo.create_model("bigram", vocab_size=V, context_length=8)
    config = own_config(model.bfloat16())
    assert is_own(config)
    assert not is_own({"model_type": "llama", "lmzoo": {}})
    assert not is_own({"model_type": "lmzoo", "lmzoo": 1, "model": "bigram"})  # of a model directory
    assert json.loads(json.dumps(config)) == config
    content = config.pop("lmzoo")
    assert config == {
        "model_type": "lmzoo",
        "architectures": ["LmzooForCausalLM"],
        "vocab_size": V,
        "bos_token_id": None,
        "eos_token_id": None,
        "dtype": "bfloat16",
    }
    assert content == {"lmzoo": 1, "model": "bigram", "config": {"vocab_size": V, "context_length": 8}}


def test_own_model_loads_with_the_same_logits(tmp_path: Path) -> None:
    model = written(tmp_path)
    loaded = lmzoo.load_model(tmp_path)
    assert (loaded.family, loaded.config, loaded.training) == ("retnet", model.config, False)
    idx = random_tokens(V, 2, 16)
    with torch.no_grad():
        assert torch.equal(loaded(idx).logits, model(idx).logits)
    assert lmzoo.load_model(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"vocab_size": 12}, r"config\.json: vocab_size must be that of lmzoo, 11$"),
        ({"architectures": ["LlamaForCausalLM"]}, r"config\.json: architectures must have LmzooForCausalLM$"),
        ({"lmzoo": {"lmzoo": 1, "model": "retnett", "config": {}}}, r"config\.json: .*retnett"),
        ({"lmzoo": {}}, r"config\.json: must hold lmzoo \(1\), model and config$"),
        ({"lmzoo": ["retnet"]}, r"lmzoo=\['retnet'\] must be an object$"),
    ],
)
def test_own_model_refuses_a_config_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], error: str) -> None:
    written(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=error):
        lmzoo.load_model(tmp_path)


def test_own_model_refuses_other_tensors_and_another_fingerprint(tmp_path: Path) -> None:
    model = written(tmp_path)
    tensors = {f"{PREFIX}{name}": tensor.detach() for name, tensor in tensors_of(model).items()}
    save_file({**tensors, "model.extra": torch.ones(1)}, _file(tmp_path))
    with pytest.raises(CheckpointError, match=r"the checkpoint holds model\.extra, which the model has no place for$"):
        lmzoo.load_model(tmp_path)
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, _file(tmp_path))
    with pytest.raises(CheckpointError, match=r"config\.json: the logits of the loaded model differ by"):
        lmzoo.load_model(tmp_path)
