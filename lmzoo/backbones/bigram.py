"""The bigram model: a table of logits, one row per token. It is the first model of the lecture that started this zoo.

Distinctive: it sees only the present token, so its best possible loss is known exactly: the conditional entropy of the
counted bigrams. Its features are its logits, and its head is the identity. The initial values are zero (uniform
predictions, a loss of ln V), not N(0, 1) as in the lecture; the problem is convex, so zeros do not hinder training.
"""

from __future__ import annotations

from torch import Tensor, nn

from lmzoo.layers.init import constant
from lmzoo.layers.linear import Embedding
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.registry import register_model
from lmzoo.state import State


@register_model("bigram")
class Bigram(LanguageModel):
    """`logits[t] = table[idx[t]]` with a table (V, V)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.table = Embedding(config.vocab_size, config.vocab_size, init=constant(0.0))
        self.head = nn.Identity()

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, receptive_field=1, state_growth="none")

    def flops(self, T: int) -> float:
        """Zero: it looks up rows and multiplies nothing."""
        return 0.0

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return ()  # it needs no earlier tokens

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        return self.table(idx_BT), state
