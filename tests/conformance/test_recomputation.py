"""Gradients of a backward pass that begins with another random state, or computes layers again."""

from __future__ import annotations

import pytest

from lmzoo.conformance import Fault, subject
from lmzoo.conformance.recomputation import require_repeatable_backward
from tests.museum.base import Transformer
from tests.museum.exhibits import carried_list_grows_in_recomputation, recomputed_with_another_dropout_mask


def test_require_repeatable_backward_accepts_sound_models() -> None:
    for model in (Transformer, "llama"):
        require_repeatable_backward(subject(model))


def test_require_repeatable_backward_tells_the_two_causes_apart() -> None:
    with pytest.raises(Fault, match="begins with another random state"):
        require_repeatable_backward(subject(recomputed_with_another_dropout_mask.MODEL))
    with pytest.raises(Fault, match="with gradient_checkpointing, which runs each layer again"):
        require_repeatable_backward(subject(carried_list_grows_in_recomputation.MODEL))
