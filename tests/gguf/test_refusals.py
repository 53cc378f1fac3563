"""Tests that a model, a setting or an argument that a GGUF file cannot hold is refused in one line."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lmzoo
from lmzoo.errors import CheckpointError, LmzooError
from lmzoo.gguf.write import converted, defaults_of, form_of, settings_of, write_gguf
from tests.gguf.files import GPT_OSS, llama

AFMOE: dict[str, Any] = {"pattern": "window*3 grouped_nope", "qk_norm": "head", "gate": True, "post_norms": True}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 8}, "GGUF has no form of this llama model: as llama, window=8 must be None"),
        ({"gate": True}, "gate=True must be False"),
        ({"qk_norm": True, "attention_bias": "all"}, "must be"),
        ({"pattern": "rope nope"}, "pattern='rope nope' must"),
        ({"rotary_fraction": 0.5, "attention_bias": "all"}, "rotary_fraction=0.5 must be 1.0"),
        ({"qk_norm": True, "rope_scaling": "llama3 factor=2 original=8"}, "must be none or linear or yarn"),
        ({"rope_scaling": "yarn factor=2 original=8 attention=3"}, "must have the usual attention=1.06931"),
    ],
)
def test_write_gguf_refuses_what_llama_cpp_would_compute_differently(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_gguf(llama(**settings), tmp_path / "a.gguf")
    assert [*tmp_path.iterdir()] == []


def test_form_of_refuses_a_setting_that_no_form_mentions() -> None:
    """A family gets a new setting: its effect would be missing in the file."""
    model = llama()
    settings, defaults = {**settings_of(model), "new": 2}, {**defaults_of(model), "new": 1}
    assert form_of("llama", {**settings, "new": 1}, defaults).arch == "llama"
    with pytest.raises(CheckpointError, match="as llama, new=2 must be 1"):
        form_of("llama", settings, defaults)


def test_converted_refuses_a_tensor_without_a_place() -> None:
    model = llama()
    settings = settings_of(model)
    form = form_of("llama", settings, defaults_of(model))
    tensors = {name: source for name, source in form.tensors.items() if name != "output_norm.weight"}
    with pytest.raises(CheckpointError, match=r"holds norm\.weight, which the model has no place for"):
        converted(model, replace(form, tensors=tensors), settings)


def test_write_gguf_refuses_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bigram = lmzoo.create_model("bigram", vocab_size=61)
    with pytest.raises(CheckpointError, match=r"bigram has no architecture in GGUF; these families have one: alibi, "):
        write_gguf(bigram, tmp_path / "a.gguf")
    with pytest.raises(CheckpointError, match="dtype='int8' must be one of float32"):
        write_gguf(llama(), tmp_path / "a.gguf", dtype="int8")
    with pytest.raises(CheckpointError, match=r"missing/a.gguf: cannot be written: No such file or directory$"):
        write_gguf(llama(), tmp_path / "missing" / "a.gguf")
    (tmp_path / "a.gguf").write_text("")
    with pytest.raises(CheckpointError, match=r"a\.gguf: exists: it is left as it is$"):
        write_gguf(llama(), tmp_path / "a.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(CheckpointError, match=r"need the package gguf: pip install 'lmzoo\[gguf\]'"):
        write_gguf(llama(), tmp_path / "b.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


def test_write_gguf_refuses_numbers_that_the_file_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"context_length=8589934592 must be below 2\^32 in a GGUF file"):
        write_gguf(llama(context_length=1 << 33), tmp_path / "a.gguf")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "model=int must be a LanguageModel"),
        ({"path": 3}, "path=3 must be a path"),
        ({"tokenizer": {"a": 1}}, r"tokenizer=\{'a': 1\} must be a tokenizer"),
        ({"dtype": [1]}, r"dtype=\[1\] must be one of float32"),
    ],
)
def test_write_gguf_names_a_wrong_argument(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(LmzooError, match=message):
        write_gguf(**{"model": llama(), "path": tmp_path / "a.gguf", **arguments})
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("deepseek", {"latent_eps": 1e-5}, "as deepseek2, latent_eps=1e-05 must be norm_eps=1e-06"),
        ("deepseek", {"n_groups": 2}, r"n_groups=2 must be 1"),
        ("deepseek", {"pattern": "grouped rope"}, "pattern='grouped rope' must be "),
        ("mixtral", {"d_shared": 12, "attention_bias": "qkv"}, "normalize=True must be False"),
        ("gptj", {"attention_bias": "all", "head_dim": 12}, "as phi2, head_dim=12 must be 8"),
        ("gpt_neo", {"pattern": "full"}, "as starcoder, n_kv_heads=4 must be 1"),
        ("lfm2", {"feed_forward": "experts mlp"}, "as lfm2moe, feed_forward='experts mlp' must have mlp in its first"),
        ("qwen3_next", {"pattern": "delta attention"}, "as qwen3next, feed_forward='mlp' must be experts"),
        ("qwen3_next", {"pattern": "delta attention", "value_dim": 9, "feed_forward": "experts"}, "must be key_dim=8"),
        ("deepseek", {"pattern": "kda nope", "kda_heads": 3, "latent_eps": 1e-6}, "kda_heads=3 must be n_heads=4"),
        ("granite", {"post_norms": True, "n_experts": 4}, "post_norms=True must be False"),
        ("granite", {"pattern": "mamba2 rope", "dt_min": 0.1}, "as granitehybrid, dt_min=0.1 must be 0.0"),
        ("granite", {"pattern": "latent"}, "pattern='latent' must"),
        (
            "hybrid",
            {"pattern": "mamba attention", "select_norm": True, "normalize": False},
            "must have only mamba or nope",
        ),
        (
            "falcon_h1",
            {"ssm_norm": "before", "tie_embeddings": False},
            "as falcon-h1, ssm_norm='before' must be 'none'",
        ),
        ("olmo2", {"qk_norm": "head", "n_layers": 64}, "as exaone4, n_layers=64 must be another number"),
        ("mixtral", GPT_OSS, "as gpt-oss, window must be a number"),
        ("mixtral", {**GPT_OSS, "window": 9, "pattern": "full rope"}, "pattern='full rope' must be rope"),
        (
            "deepseek",
            {**AFMOE, "embedding_scale": 2.0},
            r"embedding_scale=2.0 must be sqrt\(d_model\) = 5.65",
        ),
        ("llama", {"rotary_fraction": 0.5, "window": 9}, "as phi3, window=9 must be None"),
    ],
)
def test_write_gguf_refuses_settings_of_other_families(
    family: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    sizes = {"vocab_size": 61, "d_model": 32, "n_layers": 2, "n_heads": 4}
    with pytest.raises(CheckpointError, match=message):
        write_gguf(lmzoo.create_model(family, **{**sizes, **settings}), tmp_path / "a.gguf")
