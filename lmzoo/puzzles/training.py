"""A short training of a puzzle, on a text that is in the package, to show that its loss falls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lmzoo import registry
from lmzoo.data import load_corpus, train_tokenizer

DATA = "pydocs"
SIZES = {"d_model": 32, "n_layers": 2, "n_heads": 4, "context_length": 64}
STEPS, BATCH, LEARNING_RATE = 200, 16, 5e-3
SHOWN = 40  # steps whose losses are averaged


def falling_loss(family: str, *, steps: int = STEPS, shown: int = SHOWN) -> Iterator[tuple[int, float]]:
    """Yields the number of steps and the mean loss of the last `shown` of them, while the model `family` is trained."""
    text = next(iter(load_corpus(DATA).chunks("train")))
    tokenizer = train_tokenizer("char", [text])
    ids = torch.tensor(tokenizer.encode(text))
    fields = registry.model_class(family).config_class.__dataclass_fields__
    sizes: dict[str, Any] = {name: size for name, size in SIZES.items() if name in fields}
    generator = torch.Generator().manual_seed(0)
    model = registry.create_model(family, vocab_size=tokenizer.vocab_size, generator=generator, **sizes).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    losses: list[float] = []
    for step in range(1, steps + 1):
        idx, targets = _batch(ids, generator)
        loss = model(idx, targets, return_logits=False).loss
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % shown == 0:
            yield step, sum(losses[-shown:]) / shown


def _batch(ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws sequences, and their targets one place later."""
    T = SIZES["context_length"]
    start = torch.randint(len(ids) - T, (BATCH, 1), generator=generator)
    pieces = ids[start + torch.arange(T + 1)]
    return pieces[:, :-1], pieces[:, 1:]
