"""Tests of fingerprints: a model that is not what its config says is refused when it is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import lmzoo
from lmzoo.errors import CheckpointError
from lmzoo.layers.attention import Attention
from lmzoo.layers.mlp import MLP
from lmzoo.model import LanguageModel
from lmzoo.storage import fingerprint
from tests.storage.test_models import set_top, sign


@pytest.fixture
def llama() -> LanguageModel:
    torch.manual_seed(0)
    return lmzoo.create_model("llama", vocab_size=11, d_model=16, n_layers=2, n_heads=2, context_length=24)


def narrow(model: LanguageModel) -> None:
    for module in model.modules():
        if isinstance(module, Attention):
            module.window = 4


def swap(model: LanguageModel) -> None:
    for module in model.modules():
        if isinstance(module, MLP):
            module.activation = F.relu


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("change", [narrow, swap])
def test_fingerprint_shows_a_part_that_the_config_does_not_record(
    llama: LanguageModel, tmp_path: Path, change: Callable[[LanguageModel], None], dtype: torch.dtype
) -> None:
    llama.to(dtype).save(tmp_path / "as built")
    lmzoo.load_model(tmp_path / "as built")
    change(llama)
    llama.save(tmp_path / "changed")
    with pytest.raises(CheckpointError, match=r"config.json: the logits .* differ by .*was changed after it was built"):
        lmzoo.load_model(tmp_path / "changed")


def test_fingerprint_leaves_the_model_as_it_is(llama: LanguageModel) -> None:
    llama.train()
    llama.norm.eval()
    before, precision = torch.get_rng_state(), torch.get_float32_matmul_precision()
    for dtype in (torch.float32, torch.bfloat16):
        llama.to(dtype)
        modes = [module.training for module in llama.modules()]
        assert fingerprint.fingerprint(llama) == fingerprint.fingerprint(llama)
        assert [module.training for module in llama.modules()] == modes
        assert {parameter.dtype for parameter in llama.parameters()} == {dtype}
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_float32_matmul_precision() == precision


def test_fingerprint_accepts_the_rounding_of_other_machines(llama: LanguageModel) -> None:
    """Weights that differ in their last bits change the logits more than sums in another order do."""
    saved = fingerprint.fingerprint(llama)
    with torch.no_grad():
        for parameter in llama.parameters():
            parameter.mul_(1 + 1e-6 * torch.randn_like(parameter))
    fingerprint.check(llama, saved, Path("config.json"))


def test_fingerprint_is_left_out_when_the_logits_are_not_finite(llama: LanguageModel, tmp_path: Path) -> None:
    with torch.no_grad():
        llama.get_parameter("norm.weight").fill_(float("nan"))
    llama.save(tmp_path / "saved")
    assert "fingerprint" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    lmzoo.load_model(tmp_path / "saved")


@pytest.mark.parametrize(
    "saved", [None, 3, [], [[1.0]], [["x"] * 8] * 8, [[float("nan")] * 8] * 8, [[10**400] * 8] * 8], ids=str
)
def test_check_refuses_a_forged_fingerprint(llama: LanguageModel, tmp_path: Path, saved: object) -> None:
    llama.save(tmp_path / "saved")
    set_top(fingerprint=saved)(tmp_path / "saved")
    sign(tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"fingerprint must be 8 lists of 8 finite numbers|number .*out of range"):
        lmzoo.load_model(tmp_path / "saved")


def test_check_loads_a_folder_without_a_fingerprint(llama: LanguageModel, tmp_path: Path) -> None:
    llama.save(tmp_path / "saved")
    file = tmp_path / "saved" / "config.json"
    content = json.loads(file.read_text())
    del content["fingerprint"]
    file.write_text(json.dumps(content))
    sign(tmp_path / "saved")
    assert lmzoo.load_model(tmp_path / "saved").config == llama.config
