"""The bigram model compared with counted bigrams, which give its best table exactly."""

from __future__ import annotations

import math

import torch

import lmzoo


def test_bigram_training_converges_to_the_counted_table() -> None:
    """On the training tokens, no table is better than the relative frequencies of the pairs."""
    V, generator = 7, torch.Generator().manual_seed(0)
    chain_VV = torch.randn(V, V, generator=generator).mul(2).softmax(dim=1)
    tokens = [0]
    for _ in range(2000):
        tokens.append(int(torch.multinomial(chain_VV[tokens[-1]], 1, generator=generator)))
    idx, targets = torch.tensor([tokens[:-1]]), torch.tensor([tokens[1:]])
    count_VV = torch.zeros(V, V, dtype=torch.double).index_put_(
        (idx[0], targets[0]), torch.ones(2000, dtype=torch.double), accumulate=True
    )
    best_VV = count_VV / count_VV.sum(dim=1, keepdim=True)
    best = -(count_VV.xlogy(best_VV)).sum().item() / 2000

    model = lmzoo.create_model("bigram", vocab_size=V)
    assert abs(model(idx, targets).loss.item() - math.log(V)) < 1e-5, "it begins by predicting uniformly"
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        model(idx, targets).loss.backward()
        optimizer.step()
    assert best <= model(idx, targets).loss.item() < best + 1e-3
    predicted_VV = model(torch.arange(V)[None]).logits[0].softmax(dim=1).double()
    torch.testing.assert_close(predicted_VV, best_VV, atol=0.01, rtol=0)
