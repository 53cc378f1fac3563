"""Counted n-grams: the model of language before neural networks (Shannon 1948; Witten & Bell 1991, method C).

Distinctive: nothing is trained by gradients. `fit` counts every n-gram of up to `order` tokens in one pass over a text,
and the estimate after a long context is interpolated with those after shorter ones (`lmzoo.ops.ngram`). Its features
are the contexts that end at each position, as rows of the table of counts, and its head looks up what followed them.
Deviation: the table has a fixed size. If the text has more n-grams, only the most frequent ones are kept; the
estimates are then those of a text without the others, and still add up to one.

Legend: B batch, T time, D contexts of 0 to order - 1 tokens that end at one position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lmzoo.configs import require_at_most, require_between, require_positive
from lmzoo.layers.ngram import NGramHead
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.registry import register_model
from lmzoo.state import State


@dataclass(frozen=True, kw_only=True)
class NGramConfig(ModelConfig):
    """The sizes of the table of counts."""

    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"order": 2}, {"capacity": 300})

    order: int = 5  # tokens of the longest n-gram: one token and the `order` - 1 before it
    capacity: int = 1 << 20  # rows of the table: n-grams of all lengths that are kept

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(self, "order", 2, 16)
        require_positive(self, "capacity")
        require_at_most(self, 1 << 32, "capacity")


@register_model("ngram")
class NGramModel(LanguageModel):
    """Predicts the next token from the counts of what followed the last tokens before."""

    config_class = NGramConfig

    def __init__(self, config: NGramConfig) -> None:
        super().__init__(config)
        self.head: NGramHead = NGramHead(config.vocab_size, config.order, config.capacity)

    @property
    def traits(self) -> Traits:
        reach = self.head.order - 1
        return Traits(extrapolates=True, receptive_field=reach, state_growth="constant", trainable=False)

    def fit(self, tokens_BT: Tensor) -> None:
        self._check_ids("tokens_BT", tokens_BT, like=tokens_BT)  # allows the padding
        self.head.fit(tokens_BT)

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return self.head.start(batch_size)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        before_BD = self.head.start(len(idx_BT)) if state is None else state
        x_BTD = self.head.read(idx_BT, before_BD)
        return x_BTD, None if state is None else x_BTD[:, -1].clone()
