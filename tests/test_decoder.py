"""The decoder frame: with any mixer, decoding equals the forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.layers.context import Context
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear


class RunningSum(Layer):
    """y_t = W (x_0 + ... + x_t) / 4: the smallest mixer with a state, one (B, D) tensor."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.out = Linear(d_model, d_model)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch_size, self.out.in_features)

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        sum_BTD = x_BTD.cumsum(dim=1)
        if state is not None:
            sum_BTD = sum_BTD + state[:, None]
        return self.out(sum_BTD / 4), None if state is None else sum_BTD[:, -1]


class StatelessSum(Layer):
    """A mixer with the same output and no state."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.out = Linear(d_model, d_model)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.out(x_BTD.cumsum(dim=1) / 4)


@dataclass(frozen=True, kw_only=True)
class SumConfig(lmzoo.MixerConfig):
    stateful: bool = True
    stateless_from: int = 99  # the layers from here on keep no state


class SumModel(lmzoo.MixerModel):
    config_class = SumConfig

    def make_mixer(self, config: SumConfig, layer: int) -> nn.Module:
        stateful = config.stateful and layer < config.stateless_from
        return RunningSum(config.d_model) if stateful else StatelessSum(config.d_model)


class SlidingSumModel(SumModel):
    extrapolates = False


def make(cls: type[SumModel] = SumModel, **settings: object) -> SumModel:
    config = SumConfig(vocab_size=11, context_length=8, d_model=16, n_layers=3, d_ff=24, **settings)
    model = cls(config).eval()
    generator = torch.Generator().manual_seed(0)
    model.init_weights(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@pytest.mark.parametrize("settings", [{}, {"stateful": False}, {"stateless_from": 2}, {"cls": SlidingSumModel}])
@pytest.mark.parametrize("split", [[1] * 13, [5, 1, 7], [8, 5], [13]])
def test_decode_equals_forward_with_and_without_a_state(settings: dict[str, Any], split: list[int]) -> None:
    model = make(**settings)
    idx = torch.randint(11, (2, 13), generator=torch.Generator().manual_seed(1))
    state, end = model.init_state(2, 13), 0
    for n in split:
        logits_BV, state = model.decode(idx[:, end : end + n], state)
        end += n
        start = 0 if model.extrapolates else max(0, end - 8)
        expected_BV = model(idx[:, start:end]).logits[:, -1]
        assert expected_BV.std() > 0.1, "the weights must make the logits differ"
        torch.testing.assert_close(logits_BV, expected_BV, atol=1e-5, rtol=1e-5)


def test_init_state_is_kept_only_when_every_mixer_has_one() -> None:
    assert make().init_state(2)["layers"] is not None
    assert make(stateful=False).init_state(2)["layers"] is None
    assert make(stateless_from=2).init_state(2)["layers"] is None
    assert make().state_bytes(8) == make().state_bytes(800) == 3 * 16 * 4


def test_mixer_model_is_pre_norm_and_residual() -> None:
    model = make()
    idx = torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(1))
    x_BTD = model.tokens(idx)
    for mixer, mlp in model.blocks:
        x_BTD = x_BTD + mixer.inner(mixer.before(x_BTD), None, None)[0]
        x_BTD = x_BTD + mlp.inner(mlp.before(x_BTD))
    torch.testing.assert_close(model.features(idx)[0], model.norm(x_BTD))


def test_init_weights_calls_the_layers_initializers() -> None:
    model = make()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.init_weights(torch.Generator().manual_seed(3))
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), f"{name} was not drawn anew"
        if "norm" in name or "before" in name:
            assert (parameter == 1).all()
        elif parameter.ndim == 2:
            assert abs(parameter.std() / 0.02 - 1) < 0.2, name
        else:
            assert (parameter == 0).all()


def test_mixer_config_has_the_usual_default_width() -> None:
    assert SumModel(SumConfig(vocab_size=11, d_model=48, n_layers=1)).blocks[0][1].inner.down.in_features == 128
    tied, untied = (make(tie_embeddings=tied).num_params() for tied in (True, False))
    assert untied - tied == 11 * 16
    with pytest.raises(ConfigError, match="d_ff=0 must be a positive integer"):
        SumConfig(vocab_size=11, d_ff=0)
    with pytest.raises(ConfigError, match="n_layers=0 must be a positive integer"):
        SumConfig(vocab_size=11, n_layers=0)


class ListModel(lmzoo.Decoder):
    def block(self, config: lmzoo.DecoderConfig, layer: int) -> Any:
        return [RunningSum(config.d_model)]


def test_decoder_refuses_a_block_that_is_a_list() -> None:
    with pytest.raises(
        TypeError, match=r"^ListModel.block must return a layer, such as Stack\(\[a, b\]\), not a list$"
    ):
        ListModel(lmzoo.DecoderConfig(vocab_size=11))


def test_mixer_model_needs_a_mixer() -> None:
    with pytest.raises(TypeError, match="make_mixer"):
        lmzoo.MixerModel(lmzoo.MixerConfig(vocab_size=11))
