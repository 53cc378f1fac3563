"""Vectors that lose too much in 16 bits, far along a text."""

from __future__ import annotations

import pytest

from lmzoo.conformance import Fault, subject
from lmzoo.conformance.kept import require_vectors_kept
from tests.museum.exhibits import slow_decays_rounded_in_copies


class KeptMixer(slow_decays_rounded_in_copies.Mixer):
    """Names its decays among the parameters that copies do not round."""

    keep_float32 = ("keep",)


class Kept(slow_decays_rounded_in_copies.MODEL):
    def make_mixer(self, config: object, layer: int) -> KeptMixer:
        return KeptMixer(self.config.d_model)


def test_require_vectors_kept_finds_slow_decays() -> None:
    with pytest.raises(Fault, match=r"changes logits by \d+% of the largest one at 300 tokens, .* keep_float32"):
        require_vectors_kept(subject(slow_decays_rounded_in_copies.MODEL))


@pytest.mark.parametrize("model", [Kept, "mamba2", "hnet"])
def test_require_vectors_kept_accepts_what_is_kept_and_what_differs_little(model: type[Kept] | str) -> None:
    require_vectors_kept(subject(model))
