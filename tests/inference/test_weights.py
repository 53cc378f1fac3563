"""Tests of decoding copies: the same function up to rounding, for every family, and the bytes they read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import lmzoo
from lmzoo import losses
from lmzoo.errors import InputError
from lmzoo.inference import FORMS, Weights, decoding_copy, has_bfloat16_kernels, int8_share, weight_bytes_per_token
from lmzoo.inference.weights import Int8Linear, PackedLinear, PlainLinear, cast_weights, quantize, sum_of_products
from lmzoo.layers.head import TiedHead

# oneDNN's blocked layout needs a CPU with bfloat16 kernels; without them a copy uses row-major weights.
FORMS_HERE = (PlainLinear, Int8Linear, PackedLinear) if has_bfloat16_kernels() else (PlainLinear, Int8Linear)
BFLOAT16 = PackedLinear if has_bfloat16_kernels() else PlainLinear


def tiny(family: str) -> lmzoo.LanguageModel:
    generator = torch.Generator().manual_seed(0)
    return lmzoo.create_model(family, vocab_size=65, context_length=32, generator=generator).eval()


@pytest.mark.parametrize("weights", FORMS)
@pytest.mark.parametrize("family", lmzoo.list_models("*.tiny"))
def test_decoding_copy_computes_what_the_model_does(family: str, weights: Weights) -> None:
    model = tiny(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copy = decoding_copy(model, weights)
    idx_BT = torch.randint(65, (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted_BTV, found_BTV = model(idx_BT).logits, copy(idx_BT).logits
    # kda's decays and gates come out of two maps of low rank, whose rounding errors are multiplied.
    allowed = (0.06 if family == "kda.tiny" else 0.03) * wanted_BTV.abs().max() + 1e-6
    assert (found_BTV - wanted_BTV).abs().max() < allowed
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    state = copy.init_state(3, 20)
    logits_BV, state = copy.decode(idx_BT[:, :15], state)
    for t in range(15, 20):
        logits_BV, state = copy.decode(idx_BT[:, t : t + 1], state)
    assert (logits_BV - found_BTV[:, -1]).abs().max() < allowed


@pytest.mark.parametrize(("rows", "d_in", "d_out"), [(1, 32, 1), (1, 64, 65), (5, 96, 50), (17, 384, 7)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_linear_formats_against_float64(rows: int, d_in: int, d_out: int, with_bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight_ND = torch.randn(d_out, d_in, generator=generator)
    bias_N = torch.randn(d_out, generator=generator).to(torch.bfloat16) if with_bias else None
    x_BD = torch.randn(rows, d_in, generator=generator).to(torch.bfloat16)
    levels_ND, scale_N = quantize(weight_ND)
    used = {"bfloat16": weight_ND.to(torch.bfloat16).double(), "int8": levels_ND.double() * scale_N.double()[:, None]}
    for cls in FORMS_HERE:
        module, weight = cls(weight_ND, bias_N), used["int8" if cls is Int8Linear else "bfloat16"]
        wanted_BN = x_BD.double() @ weight.T + (0 if bias_N is None else bias_N.double())
        found_BN = module(x_BD)
        assert found_BN.dtype == torch.bfloat16
        torch.testing.assert_close(found_BN.double(), wanted_BN, rtol=0.01, atol=0.06)
        assert module(x_BD[:0]).shape == (0, d_out)
        assert module.weight.dtype == torch.bfloat16
        torch.testing.assert_close(module.weight.double(), weight, rtol=2**-8, atol=0)  # one rounding to bfloat16


@pytest.mark.parametrize("form", FORMS_HERE)
def test_linear_formats_take_a_part_of_the_features(form: type[PlainLinear | Int8Linear | PackedLinear]) -> None:
    """Latent attention makes its keys from a part of the cache: torch's int8 kernel crashed on such a view."""
    generator = torch.Generator().manual_seed(0)
    module = form(torch.randn(64, 32, generator=generator), None)
    x_BTD = torch.randn(3, 20, 40, generator=generator).to(torch.bfloat16)[..., :32]
    assert torch.equal(module(x_BTD), module(x_BTD.contiguous()))


def test_sum_of_products_is_a_matrix_product() -> None:
    generator = torch.Generator().manual_seed(0)
    weight_ND, x_11D = torch.randn(7, 64, generator=generator), torch.randn(1, 1, 64, generator=generator)
    wanted_N = (x_11D.double() @ weight_ND.double().T).flatten()
    torch.testing.assert_close(sum_of_products(weight_ND, x_11D).double(), wanted_N, rtol=1e-5, atol=1e-5)


def test_quantize_gives_the_nearest_levels() -> None:
    weight_ND = torch.randn(9, 64, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-4, 5)[:, None]
    weight_ND[3] = 0
    levels_ND, scale_N = quantize(weight_ND)
    error_ND = (levels_ND * scale_N.float()[:, None] - weight_ND).abs()
    assert (error_ND <= 0.5001 * scale_N.float()[:, None]).all()
    assert (levels_ND.abs().amax(dim=1)[weight_ND.any(dim=1)] >= 125).all()  # the full range is used
    assert not levels_ND[3].any()


def test_weight_bytes_per_token_counts_what_a_token_reads() -> None:
    model = lmzoo.create_model("gpt2", vocab_size=65, d_model=64, n_layers=2, n_heads=2, context_length=16)
    # Every parameter once (the head reads the tied table), but only one row of each table.
    tables = 64 * (65 + 16)
    read = model.num_params() - tables + 2 * 64 + 65 * 64
    assert weight_bytes_per_token(model) == 4 * read
    packed = decoding_copy(model, "bfloat16")
    assert weight_bytes_per_token(packed) + sum(2 * m.bias.numel() for m in biased(packed)) == 2 * read
    assert weight_bytes_per_token(decoding_copy(model, "int8")) < 0.6 * weight_bytes_per_token(packed)


class CappedHead(TiedHead):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x))


class DoubledLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Tower(lmzoo.LanguageModel):
    """A sequence of linear maps of every kind."""

    def __init__(self) -> None:
        super().__init__(lmzoo.ModelConfig(vocab_size=65, context_length=32))
        self.tokens = nn.Embedding(65, 32)
        nn.init.normal_(self.tokens.weight, std=0.3)  # logits around 1, where the logit cap of the head matters
        self.plain, self.doubled, self.hooked = nn.Linear(32, 32), DoubledLinear(32, 32), nn.Linear(32, 32)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(32, 32))
        self.hooked.register_forward_hook(lambda module, inputs, output: 3 * output)
        self.head = CappedHead(self.tokens)

    def features(self, idx_BT: Tensor, state: object = None) -> tuple[Tensor, object]:
        return self.normed(self.hooked(self.doubled(self.plain(self.tokens(idx_BT))))), state


def test_decoding_copy_replaces_linear_maps_with_their_own_forward_alone() -> None:
    """A subclass of a linear map, and a linear map with hooks, do more than one product, so they are not replaced."""
    torch.manual_seed(0)
    model = Tower().eval()
    copy = decoding_copy(model, "bfloat16")
    kinds = [type(module) for module in (copy.plain, copy.normed, copy.doubled, copy.hooked, copy.head)]
    assert kinds == [BFLOAT16, BFLOAT16, DoubledLinear, nn.Linear, CappedHead]
    assert copy.head.weight is copy.tokens.weight, "still tied"
    idx_BT = torch.randint(65, (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted_BTV, found_BTV = model(idx_BT).logits, copy(idx_BT).logits
    assert (found_BTV - wanted_BTV).abs().max() < 0.03 * wanted_BTV.abs().max()


def test_decoding_copy_gives_the_loss_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHUNK_LOGITS", 65 * 7)
    idx_BT, targets_BT = torch.randint(65, (2, 3, 20), generator=torch.Generator().manual_seed(1))
    for weights in FORMS:
        copy = decoding_copy(tiny("gpt2"), weights)
        with torch.no_grad():
            wanted = copy(idx_BT, targets_BT).loss
            torch.testing.assert_close(copy(idx_BT, targets_BT, return_logits=False).loss, wanted, rtol=1e-3, atol=0)


def biased(model: lmzoo.LanguageModel) -> list[PackedLinear | PlainLinear]:
    return [m for m in model.modules() if isinstance(m, (PackedLinear, PlainLinear)) and m.bias is not None]


def test_decoding_copy_refuses_wrong_arguments() -> None:
    with pytest.raises(InputError, match="weights='int3' must be one of bfloat16, int8"):
        decoding_copy(tiny("bigram"), "int3")
    with pytest.raises(InputError, match="rows=0 must be a positive integer"):
        decoding_copy(tiny("bigram"), "int8", rows=0)
    with pytest.raises(InputError, match="model=NoneType must be a LanguageModel"):
        decoding_copy(None, "int8")  # type: ignore[type-var]


def test_cast_weights_keeps_what_layers_declare_in_float32() -> None:
    """Mamba's decay rates and step sizes stay exact; everything else is cast, buffers included."""
    model = tiny("mamba")
    model.register_buffer("numbers", torch.ones(3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert cast_weights(model, torch.bfloat16) is model
    for name, tensor in model.state_dict().items():
        if name.endswith(("A_log", "dt_bias")):
            assert torch.equal(tensor, before[name]), name
        else:
            assert tensor.dtype == torch.bfloat16, name
    assert model.dtype == torch.bfloat16
    logits_BTV = model(torch.zeros(1, 40, dtype=torch.long)).logits
    assert torch.isfinite(logits_BTV).all()
    assert cast_weights(model, torch.float64).blocks[0].inner.A_log.dtype == torch.float64


def test_int8_share_counts_recurrent_weights_and_experts_as_not_quantized() -> None:
    shares = {}
    for name in ("gpt2", "lstm", "mixtral"):
        model = lmzoo.create_model(name, d_model=64, vocab_size=65, context_length=32)
        shares[name] = int8_share(decoding_copy(model, "int8"))
        assert int8_share(decoding_copy(model, "bfloat16")) == 0
    assert shares["gpt2"] > 0.95
    assert shares["lstm"] < 0.3
    assert shares["mixtral"] < 0.3


def test_copied_linear_has_the_sizes_of_the_original() -> None:
    for cls in FORMS_HERE:
        layer = cls(torch.randn(7, 32), None)
        assert (layer.in_features, layer.out_features) == (32, 7)
