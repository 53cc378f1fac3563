"""Tests of the checkpoint format: a round trip, and one-line errors for forged files."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lmzoo
from lmzoo.data.tokenizers import CharTokenizer
from lmzoo.errors import CheckpointError, InputError, LmzooError
from lmzoo.model import LanguageModel
from lmzoo.storage import models


@pytest.fixture
def saved(model: LanguageModel, tmp_path: Path) -> Path:
    model.save(tmp_path / "saved")
    return tmp_path / "saved"


# Every other family is saved, and loaded by another process, in tests/conformance/test_saving.py.
@pytest.mark.parametrize("family", ["bigram", "gpt2", "hyena", "mamba", "mixtral", "ngram"])
def test_load_model_returns_what_was_saved(family: str, tmp_path: Path) -> None:
    model = lmzoo.create_model(family, vocab_size=11, context_length=8).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save(tmp_path / "saved")
    before = torch.get_rng_state()
    again = lmzoo.load_model(tmp_path / "saved")
    assert torch.equal(torch.get_rng_state(), before)
    assert not again.training
    assert (type(again), again.config) == (type(model), model.config)
    idx = torch.randint(11, (2, 8))
    assert torch.equal(again(idx).logits, model(idx).logits)


def test_save_model_writes_three_files(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "manifest.json", "model.safetensors"]
    content = json.loads((saved / "config.json").read_text())
    assert (content["lmzoo"], content["model"], content["config"]["d_model"]) == (1, "gpt2", 16)
    assert "head.weight" not in load_file(saved / "model.safetensors")  # the tied weight is stored once
    modes = {stat.S_IMODE(path.stat().st_mode) for path in saved.iterdir()}
    assert len(modes) == 1, "all files can be read by the same people"


def test_save_model_keeps_the_dtype_of_the_weights(model: LanguageModel, tmp_path: Path) -> None:
    model.bfloat16().save(tmp_path / "half")
    again = lmzoo.load_model(tmp_path / "half")
    assert again.dtype == torch.bfloat16
    assert torch.equal(again.state_dict()["tokens.weight"], model.state_dict()["tokens.weight"])


def test_save_model_replaces_a_model_and_nothing_else(model: LanguageModel, saved: Path) -> None:
    with torch.no_grad():
        model.get_parameter("norm.weight").fill_(7.0)
    model.save(saved)
    assert lmzoo.load_model(saved).get_parameter("norm.weight").mean().item() == 7.0
    other = saved.parent / "photos"
    other.mkdir()
    (other / "cat.png").touch()
    with pytest.raises(CheckpointError, match="photos: exists and is not a saved model"):
        model.save(other)
    assert [path.name for path in other.iterdir()] == ["cat.png"]


def test_save_model_writes_the_tokenizer_that_fits(model: LanguageModel, tmp_path: Path) -> None:
    tokenizer = CharTokenizer("abcdefghijk")
    model.save(tmp_path / "saved", tokenizer=tokenizer)
    assert "tokenizer.json" in json.loads((tmp_path / "saved" / "manifest.json").read_text())["files"]
    assert lmzoo.load_tokenizer(tmp_path / "saved").sha256 == tokenizer.sha256
    wrong: list[tuple[Any, str]] = [
        (CharTokenizer("abc"), "the tokenizer has vocab_size=3: the model needs one with vocab_size=11"),
        ("char", "'char' is not a tokenizer: the model needs one with vocab_size=11"),
    ]
    for other, message in wrong:
        with pytest.raises(InputError, match=message):
            model.save(tmp_path / "other", tokenizer=other)
    assert not (tmp_path / "other").exists()


def test_save_model_refuses_a_class_without_a_name(tmp_path: Path) -> None:
    from lmzoo.backbones.bigram import Bigram

    class Nameless(Bigram):
        family = ""

    with pytest.raises(CheckpointError, match=r"Nameless has no name .*register_model"):
        Nameless(Bigram.config_class(vocab_size=3)).save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def sign(folder: Path) -> None:
    """Rewrite the manifest for the current files of the folder, as an attacker would."""
    files = [path for path in folder.iterdir() if path.name != "manifest.json"]
    entries = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in files
    }
    (folder / "manifest.json").write_text(json.dumps({"lmzoo": 1, "files": entries}))


def set_config(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        content["config"] |= values
        (folder / "config.json").write_text(json.dumps(content))

    return change


def set_top(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**content, **values}))

    return change


def change_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


def truncate(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 4)


def drop_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def cut_config(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text()[:-3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (truncate, "model.safetensors: is not a safetensors file"),
        (drop_config, "config.json is not listed"),
        (cut_config, "config.json: is not JSON"),
        (set_top(lmzoo=9), r"config.json: must hold lmzoo \(1\), model and config"),
        (set_top(model="gpt5"), "model 'gpt5' is unknown; .*; add one with --plugin FILE or lmzoo.register_model$"),
        (set_top(model="os.system"), "model='os.system' is not the name of a family"),
        (set_top(model="../gpt2"), "is not the name of a family"),
        (set_top(model=["gpt2"]), "must hold lmzoo"),
        (set_config(d_model=32), r"has shape \(11, 16\), its config asks for \(11, 32\)"),
        (set_config(n_heads=3), "n_heads=3 must divide d_model=16"),
        (set_config(n_layers="2"), "n_layers='2': input should be a valid integer"),
        (set_config(colour=1), "colour=1 is not a setting"),
        (set_config(n_layers=3), r"lacks the tensor 'blocks\.2\."),
        (set_config(n_layers=1), r"holds 'blocks\.1\.\S+', which the model lacks"),
        (set_config(n_layers=10**9), "asks for more tensors than model.safetensors holds"),
        (set_config(context_length=10**12), r"\(8, 16\), its config asks for \(10{12}, 16\)"),
        (set_config(context_length=10**15), "context_length=10+ must be below 2\\^40"),
        (set_config(context_length=10**30), "context_length=10+ must be below 2\\^63"),
        (change_tensors(lambda t: t.pop("norm.weight")), "lacks the tensor 'norm.weight'"),
        (change_tensors(lambda t: t.update(extra=torch.ones(3))), "holds 'extra', which the model lacks"),
        (change_tensors(lambda t: t.update({"norm.bias": t["norm.bias"].long()})), "norm.bias is of type I64"),
    ],
)
def test_load_model_refuses_forged_folders(saved: Path, change: Callable[[Path], None], message: str) -> None:
    """The manifest is valid, so the later checks must detect the change."""
    change(saved)
    sign(saved)
    with pytest.raises(CheckpointError, match=message) as caught:
        lmzoo.load_model(saved)
    assert "\n" not in str(caught.value)


def test_load_model_detects_every_flipped_byte(saved: Path) -> None:
    for path in saved.iterdir():
        good = path.read_bytes()
        for place in range(0, len(good), max(1, len(good) // 40)):
            bad = bytearray(good)
            bad[place] ^= 1 << place % 8
            path.write_bytes(bad)
            with pytest.raises(CheckpointError):
                lmzoo.load_model(saved)
        path.write_bytes(good)
    lmzoo.load_model(saved)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (3, "path=3 must be a path"),
        (None, "path=None must be a path"),
        ("gpt2", r"gpt2: there is no such run or checkpoint; lmzoo.create_model\('gpt2'\) makes it"),
        ("model.pt", "model.pt: is a file: a run or a checkpoint is a folder"),
        ("a" * 300, "there is no such run or checkpoint"),
        ("nul\0name", "cannot be the name of a file"),
    ],
)
def test_load_model_says_what_it_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"\x80")
    with pytest.raises(LmzooError, match=message):
        lmzoo.load_model(path)


def test_load_model_takes_a_dtype_and_knows_saved_folders(tmp_path: Path) -> None:
    lmzoo.create_model("mamba", vocab_size=11, d_model=16, n_layers=1, context_length=8).save(tmp_path / "saved")
    half = models.load_model(tmp_path / "saved", dtype=torch.bfloat16, device="cpu")
    found = {name.rpartition(".")[2]: parameter.dtype for name, parameter in half.named_parameters()}
    assert (found["D"], found["A_log"]) == (torch.bfloat16, torch.float32), "decays do not survive 16 bits"
    assert models.is_saved(tmp_path / "saved")
    assert not models.is_saved(tmp_path)
