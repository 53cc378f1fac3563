"""RWKV-7 compared with the authors' package `rwkv` with the same weights, in logits and states."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lmzoo
from tests.backbones.against_transformers import TOLERANCE, perturb, random_tokens

SIZES = {"d_model": 32, "n_layers": 3, "head_dim": 8, "d_ff": 40}
RANKS = {"decay_rank": 4, "rate_rank": 3, "value_rank": 2, "gate_rank": 5}
VECTORS = {"k_k": "k_k", "k_a": "k_a", "norm.weight": "ln_x.weight", "norm.bias": "ln_x.bias"}
MATRICES = {"receptance": "receptance", "key": "key", "value": "value", "out": "output"}
LOW_RANK = {"decay": "w", "rate": "a", "residual": "v", "gate": "g"}  # NAME0 is the bias, NAME1 and NAME2 the factors
NORMS = {"tokens.weight": "emb.weight", "norm": "ln_out", "norm_0": "blocks.0.ln0", "head.weight": "head.weight"}


def in_their_names(ours: dict[str, Tensor], n_layers: int, head_dim: int) -> dict[str, Tensor]:
    """Returns the weights under the names and in the layouts of a checkpoint of the authors."""
    found: dict[str, Tensor] = {}
    for name, theirs in NORMS.items():
        parts = [""] if name.endswith("weight") else [".weight", ".bias"]
        found |= {theirs + part: ours[name + part] for part in parts}
    for i in range(n_layers):
        time, channel, block = f"blocks.{i}.0.inner.", f"blocks.{i}.1.inner.", f"blocks.{i}."
        for part in ("weight", "bias"):
            found |= {f"{block}ln{n + 1}.{part}": ours[f"{block}{n}.before.{part}"] for n in (0, 1)}
        found |= {f"{block}att.{theirs}": ours[time + name] for name, theirs in VECTORS.items()}
        found |= {f"{block}att.{theirs}.weight": ours[f"{time}{name}.weight"] for name, theirs in MATRICES.items()}
        found |= {f"{block}att.x_{c}": mix for c, mix in zip("rwkvag", ours[f"{time}shift.mix"], strict=True)}
        found[f"{block}att.r_k"] = ours[f"{time}r_k"].view(-1, head_dim)
        for name, theirs in LOW_RANK.items():
            if f"{time}{name}.down.weight" in ours:
                found[f"{block}att.{theirs}1"] = ours[f"{time}{name}.down.weight"].T
                found[f"{block}att.{theirs}2"] = ours[f"{time}{name}.up.weight"].T
            if f"{time}{name}.bias" in ours:
                found[f"{block}att.{theirs}0"] = ours[f"{time}{name}.bias"]
        found[f"{block}ffn.x_k"] = ours[f"{channel}shift.mix"][0]
        found[f"{block}ffn.key.weight"] = ours[f"{channel}up.weight"]
        found[f"{block}ffn.value.weight"] = ours[f"{channel}down.weight"]
    return found


@pytest.fixture
def rwkv(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The authors' module; it reads its settings from the environment when it is imported, and uses TorchScript."""
    for name, value in {"RWKV_V7_ON": "1", "RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0"}.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield importlib.import_module("rwkv.model")


def test_rwkv7_logits_and_states_equal_the_authors_package(rwkv: Any, tmp_path: Path) -> None:
    """Forward, and decoding in pieces; one row at a time, as the package has no batches."""
    ours = lmzoo.create_model("rwkv7", vocab_size=61, context_length=16, **SIZES, **RANKS)
    perturb(ours)
    torch.save(in_their_names(ours.state_dict(), 3, 8), tmp_path / "weights.pth")
    theirs = rwkv.RWKV(str(tmp_path / "weights"), "cpu fp32")
    idx = random_tokens(61, 2, 40)
    logits_BTV = ours(idx).logits
    state, t = ours.init_state(2), 0
    for length in (21, 1, 2, 16):
        last_BV, state = ours.decode(idx[:, t : t + length], state)
        t += length
        torch.testing.assert_close(last_BV, logits_BTV[:, t - 1], atol=TOLERANCE, rtol=0)
    for row in range(2):
        expected_TV, their_state = theirs.forward(idx[row].tolist(), None, full_output=True)
        assert expected_TV.std() > 0.5, "the weights must make the logits differ"
        torch.testing.assert_close(logits_BTV[row], expected_TV, atol=TOLERANCE, rtol=0)
        for i, (time, channel) in enumerate(state["layers"].blocks):
            torch.testing.assert_close(time.before[row], their_state[3 * i], atol=TOLERANCE, rtol=0)
            memory_HVK = time.memory[row].transpose(1, 2)
            torch.testing.assert_close(memory_HVK, their_state[3 * i + 1], atol=TOLERANCE, rtol=TOLERANCE)
            torch.testing.assert_close(channel[row], their_state[3 * i + 2], atol=TOLERANCE, rtol=0)


def test_rwkv7_state_has_a_fixed_size() -> None:
    model = lmzoo.create_model("rwkv7", vocab_size=13, **SIZES)
    assert model.state_bytes(10) == model.state_bytes(1000) == 3 * 4 * (2 * 32 + 4 * 8 * 8)
    assert model.traits.state_growth == "constant"


def test_rwkv7_passes_its_options_to_the_layers() -> None:
    (time, channel), (later, _), _ = lmzoo.create_model("rwkv7", vocab_size=13, **SIZES, **RANKS).blocks
    ranks = [getattr(later.inner, name).down.weight.shape[0] for name in ("decay", "rate", "residual", "gate")]
    assert ranks == list(RANKS.values())
    assert (time.inner.residual, time.inner.head_dim, channel.inner.up.weight.shape[0]) == (None, 8, 40)


def test_rwkv7_initialization_follows_the_authors() -> None:
    weights = lmzoo.create_model("rwkv7", vocab_size=13, d_model=64, n_layers=3).state_dict()
    ramp = torch.arange(64) / 63
    torch.testing.assert_close(weights["blocks.0.0.inner.decay.bias"], -6.5 + 5 * ramp**0.85)
    torch.testing.assert_close(weights["blocks.2.0.inner.decay.bias"], -6.5 + 5 * ramp**1.85)
    torch.testing.assert_close(weights["blocks.1.0.inner.shift.mix"][1], 1 - (torch.arange(64) / 64) ** (0.9 * 2 / 3))
    for name, bound in {"receptance": 0.5, "key": 0.05, "value": 0.5, "out": 0.0}.items():
        largest = weights[f"blocks.0.0.inner.{name}.weight"].abs().max().item()
        assert 0.95 * bound / 8 <= largest <= bound / 8 + 1e-9
    assert (weights["blocks.1.0.inner.residual.bias"] == 1).all()
    assert (weights["blocks.1.1.inner.down.weight"] == 0).all()


@pytest.mark.parametrize(("preset", "millions", "within"), [("1m", 1, 0.05), ("10m", 10, 0.02)])
def test_rwkv7_presets_have_the_size_of_their_names(preset: str, millions: float, within: float) -> None:
    n = lmzoo.create_model(f"rwkv7.{preset}", vocab_size=256, device="meta").num_params()
    assert abs(n / (millions * 1e6) - 1) < within


@pytest.mark.parametrize(("preset", "published"), [("world-191m", 191_034_624), ("world-1527m", 1_527_404_544)])
def test_rwkv7_world_presets_have_the_published_number_of_parameters(preset: str, published: int) -> None:
    assert lmzoo.create_model(f"rwkv7.{preset}", device="meta").num_params() == published
