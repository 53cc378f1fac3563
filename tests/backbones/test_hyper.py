"""Hyper-connections: Llama's layers of transformers, connected by DeepSeek-V4's modules or by the paper's equations."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4HyperConnection

import lmzoo
from lmzoo.configs import to_dict
from lmzoo.errors import ConfigError
from lmzoo.hf.llama import WEIGHTS
from lmzoo.hf.weights import convert
from lmzoo.layers.hyper_connection import HyperConnection, ManifoldHyperConnection
from tests.backbones.against_transformers import assert_decoding_equals, perturb, random_tokens
from tests.backbones.references import assert_close

N = 3
OURS = {
    "vocab_size": 61,
    "context_length": 16,
    "d_model": 32,
    "d_ff": 48,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "n_streams": N,
}


class Free(nn.Module):
    """The dynamic hyper-connection, one token at a time; returns what DeepSeek-V4's module does."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {"weight": (N + 2, 32), "static": (N, N + 2), "scale": (2,), "norm": (32,)}
        self.p = nn.ParameterDict({name: nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        write, mix, read = [], [], []
        for token in x.flatten(0, 1):
            h = self.p["norm"] * token / (token.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            dynamic = torch.tanh(h @ self.p["weight"].T)
            alpha = self.p["scale"][0] * dynamic[:, : N + 1] + self.p["static"][:, : N + 1]
            write.append(self.p["scale"][1] * dynamic[:, N + 1] + self.p["static"][:, N + 1])
            mix.append(alpha[:, :N])
            read.append(alpha[:, N] @ token)
        return tuple(torch.stack(parts).unflatten(0, x.shape[:2]) for parts in (write, mix, read))


def manifold() -> nn.Module:
    sizes = SimpleNamespace(hc_mult=N, hc_sinkhorn_iters=4, hc_eps=0.0, rms_norm_eps=1e-5, hidden_size=32)
    module = DeepseekV4HyperConnection(sizes)
    with torch.no_grad():
        module.fn.zero_()
        module.base.zero_()
        module.scale.fill_(1.0)
    return module


class Reference(nn.Module):
    """Llama of transformers on N streams, with a connection for each of its attention and feed-forward layers."""

    def __init__(self, connect: Callable[[], nn.Module]) -> None:
        super().__init__()
        sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "attn_implementation": "eager"}
        self.llama = LlamaForCausalLM(LlamaConfig(**sizes, **heads, rms_norm_eps=1e-5))
        self.connections = nn.ModuleList(connect() for _ in range(4))

    def forward(self, idx: Tensor) -> Tensor:
        model = self.llama.model
        x = model.embed_tokens(idx)[:, :, None].repeat(1, 1, N, 1)
        rope = model.rotary_emb(x, torch.arange(idx.shape[1])[None])
        mask = torch.full((idx.shape[1], idx.shape[1]), -torch.inf).triu(1)[None, None]
        for i, layer in enumerate(model.layers):
            attend = lambda h, layer=layer: layer.self_attn(h, position_embeddings=rope, attention_mask=mask)[0]  # noqa: E731
            parts = ((layer.input_layernorm, attend), (layer.post_attention_layernorm, layer.mlp))
            for connection, (norm, part) in zip(self.connections[2 * i : 2 * i + 2], parts, strict=True):
                write, mix, read = connection(x)
                x = write[..., None] * part(norm(read))[..., None, :] + mix.transpose(-1, -2) @ x
        return self.llama.lm_head(model.norm(x.sum(dim=2)))


def converted(llama: dict[str, Tensor], connections: list[dict[str, Tensor]], config: Any) -> dict[str, Tensor]:
    """Returns tensors by our names."""
    ours = convert(llama, WEIGHTS, to_dict(config))
    names = {"fn": "weight", "base": "bias", "p.norm": "norm.weight"}
    for i, connection in enumerate(connections):
        for name, tensor in connection.items():
            ours[f"blocks.{i // 2}.{i % 2}.{names.get(name, name.removeprefix('p.'))}"] = tensor
    return ours


@pytest.mark.parametrize(("connect", "options"), [(Free, {}), (manifold, {"sinkhorn": 4})])
def test_hyper_logits_and_gradients_equal_the_reference(connect: Any, options: dict[str, int]) -> None:
    torch.manual_seed(3)  # with other weights, rounding errors of the gradients come near the tolerance
    theirs, ours = perturb(Reference(connect)), lmzoo.create_model("hyper", **OURS, **options).eval()
    connections = [dict(connection.named_parameters()) for connection in theirs.connections]
    ours.load_state_dict(converted(theirs.llama.state_dict(), connections, ours.config), strict=True)
    idx, targets = random_tokens(61, 2, 20), random_tokens(61, 2, 20, seed=2)
    expected = theirs(idx)
    assert expected.std() > 0.3, "the weights must make the logits differ"
    logits, loss = ours(idx, targets)
    assert_close(logits, expected, "logits")
    assert_decoding_equals(ours, idx, expected.detach(), [11, 1, 3] + [1] * 5)
    loss.backward()
    F.cross_entropy(expected.flatten(0, 1), targets.flatten()).backward()
    llama = {name: parameter.grad for name, parameter in theirs.llama.named_parameters()}
    gradients = [{name: p.grad for name, p in connection.named_parameters()} for connection in theirs.connections]
    for name, gradient in converted(llama, gradients, ours.config).items():
        assert_close(ours.get_parameter(name).grad, gradient, name)


def test_hyper_passes_its_options_to_the_connections() -> None:
    free, manifold = (lmzoo.create_model("hyper", **OURS, sinkhorn=n).blocks[1][1] for n in (None, 7))
    assert isinstance(free, HyperConnection)
    assert free.static[:, N].tolist() == [1, 0, 0], "layer 3 reads stream 3 mod 3"
    assert isinstance(manifold, ManifoldHyperConnection)
    assert manifold.iterations == 7


def test_hyper_with_initial_weights_is_llama() -> None:
    """Streams stay equal at first, and the norm divides by their number."""
    hyper = lmzoo.create_model("hyper", **OURS).double()
    llama = lmzoo.create_model("llama", **{key: OURS[key] for key in OURS if key != "n_streams"}).double()
    llama.load_state_dict({name: p for name, p in hyper.state_dict().items() if name in llama.state_dict()})
    idx = random_tokens(61, 2, 9)
    torch.testing.assert_close(hyper(idx).logits, llama(idx).logits, atol=1e-2, rtol=0)
    assert hyper.state_bytes(9) == llama.state_bytes(9)


def test_hyper_config_refuses_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="sinkhorn=0 must be a positive integer"):
        lmzoo.create_model("hyper", **OURS, sinkhorn=0)
