"""Tests the gradients to embeddings: of every lookup of the ids, with padding, zeros where there is no path."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.conformance.gradients import embedding_gradients
from lmzoo.model import LanguageModel, ModelConfig
from lmzoo.state import State

V, D = 7, 3


class Twice(LanguageModel):
    """Looks the tokens up in two tables, one of them constant and with padding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.tokens, self.head = nn.Embedding(V, D), nn.Linear(D, V, bias=False)
        self.register_buffer("table", torch.randn(V + 1, D))

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        padded = F.pad(idx_BT, (2, 0), value=V)
        other_BTD = F.embedding(padded, self.get_buffer("table"))[:, 1:-1]  # of the token before
        return self.tokens(idx_BT) + 2 * other_BTD, state


def output(logits_BTV: Tensor) -> Tensor:
    return logits_BTV[:, -1, 0].sum()


def test_embedding_gradients_of_every_lookup_without_its_padding() -> None:
    model, idx = Twice(ModelConfig(vocab_size=V)), torch.tensor([[1, 2, 3], [4, 4, 5]])
    other, own = embedding_gradients(model, idx, output)  # in the order of the lookups
    row_D = model.head.weight.detach()[0]
    zeros = torch.zeros(2, 2, D)
    assert torch.equal(own, torch.cat([zeros, row_D.expand(2, 1, D)], dim=1))
    assert torch.equal(other, torch.cat([zeros[:, :1], 2 * row_D.expand(2, 1, D), zeros[:, :1]], dim=1))


def test_embedding_gradients_are_zeros_without_a_path_and_leave_no_trace() -> None:
    class Once(Twice):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            F.embedding(idx_BT, self.get_buffer("table"))
            return self.tokens(idx_BT), state

    model = Once(ModelConfig(vocab_size=V))
    with torch.no_grad():
        other, own = embedding_gradients(model, torch.tensor([[1, 2]]), output)
    assert own.any()
    assert not other.any()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_embedding_gradients_of_a_model_without_lookups() -> None:
    class OneHot(Twice):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            return F.one_hot(idx_BT, V)[..., :D].float() @ self.tokens.weight[:D], state

    assert embedding_gradients(OneHot(ModelConfig(vocab_size=V)), torch.tensor([[1, 2]]), output) == []
