"""minGRU and minLSTM compared with a model of the same frame around the mixers of minGRU-pytorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from minGRU_pytorch.minGRU import minGRU
from minGRU_pytorch.minLSTM import minLSTM
from torch import Tensor, nn

import lmzoo
from lmzoo.layers.min_rnn import MinRNN
from tests.backbones.against_transformers import assert_decoding_equals, perturb, random_tokens

SIZES = {"vocab_size": 13, "d_model": 8, "n_layers": 2, "d_ff": 16, "expand": 3}


class Theirs(nn.Module):
    """A frame of pre-norm residual branches around the package's mixers."""

    def __init__(self, ours: lmzoo.LanguageModel, mixer: type) -> None:
        super().__init__()
        self.mixers = nn.ModuleList(mixer(8, expansion_factor=3) for _ in range(2))
        self.weights = {name: weight.detach().clone() for name, weight in ours.named_parameters()}
        for i, layer in enumerate(self.mixers):
            names = [name for name in self.weights if name.startswith(f"blocks.{i}.0.inner.")]
            weights = zip(layer.state_dict(), [self.weights.pop(name) for name in names], strict=True)
            layer.load_state_dict(dict(weights))

    def forward(self, idx_BT: Tensor) -> Tensor:
        p = self.weights
        x_BTD = p["tokens.weight"][idx_BT]
        for i, mixer in enumerate(self.mixers):
            x_BTD = x_BTD + mixer(F.rms_norm(x_BTD, (8,), p[f"blocks.{i}.0.before.weight"], 1e-5))
            y_BTD = F.rms_norm(x_BTD, (8,), p[f"blocks.{i}.1.before.weight"], 1e-5)
            gate_BTF, up_BTF = (y_BTD @ p[f"blocks.{i}.1.inner.up.weight"].T).split(16, dim=-1)
            x_BTD = x_BTD + (F.silu(gate_BTF) * up_BTF) @ p[f"blocks.{i}.1.inner.down.weight"].T
        return F.rms_norm(x_BTD, (8,), p["norm.weight"], 1e-5) @ p["head.weight"].T


@pytest.mark.parametrize(("cell", "mixer"), [("gru", minGRU), ("lstm", minLSTM)])
def test_mingru_equals_the_package(cell: str, mixer: type) -> None:
    ours, idx = perturb(lmzoo.create_model("mingru", cell=cell, **SIZES)), random_tokens(13, 2, 21)
    theirs = Theirs(ours, mixer)
    logits, expected = ours(idx).logits, theirs(idx)
    torch.testing.assert_close(logits, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
    logits.square().mean().backward()
    expected.square().mean().backward()
    for block, layer in zip(ours.blocks, theirs.mixers, strict=True):
        for parameter, other in zip(block[0].inner.parameters(), layer.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, other.grad, atol=1e-4 * other.grad.abs().max().item(), rtol=0)
    assert_decoding_equals(ours, idx, expected.detach(), (1, 1, 17, 2))


def test_mingru_passes_its_options_to_the_mixer() -> None:
    (mixer, _), *_ = lmzoo.create_model("mingru", cell="lstm", **SIZES).blocks
    assert isinstance(mixer.inner, MinRNN)
    assert (mixer.inner.cell, mixer.inner.inner) == ("lstm", 24)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_mingru_state_is_one_vector_per_layer(cell: str) -> None:
    model = lmzoo.create_model("mingru", cell=cell, **SIZES)
    assert model.state_bytes(3) == model.state_bytes(1000) == 4 * 2 * 24
    assert model.traits.state_growth == "constant"
